//! The specification of the calendar: tables of cases.
