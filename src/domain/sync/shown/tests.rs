//! Whether an entry that Airflow shows is the one that is wanted.

use serde_json::json;

use super::super::entry::EntryKind;
use super::*;

fn variable(wanted: &str, shown: &str) -> Comparison {
    let shown = Shown { key: "k".into(), description: None, fields: Fields::Variable(Some(shown.to_owned())) };
    shown.compare(&EntryValue::Variable(wanted.to_owned()))
}

#[test]
fn variables_compare_as_json_where_airflow_reads_them_so() {
    const SAME: (bool, bool) = (true, true);
    const HIDDEN: (bool, bool) = (true, false);
    const DIFFERENT: (bool, bool) = (false, false);
    for (wanted, shown, expected) in [
        ("x", "x", SAME),
        ("x", "y", DIFFERENT),
        ("x ", "x", DIFFERENT),
        // Airflow 3 shows JSON as Python writes it, and nobody knows as what text it is kept.
        (r#"{"k":1.50,"n":[1,2]}"#, r#"{"k": 1.5, "n": [1, 2]}"#, HIDDEN),
        (r#"{"a": "é"}"#, r#"{"a": "\u00e9"}"#, HIDDEN),
        (r#"{"a": 1, "b": 2}"#, r#"{"b": 2, "a": 1}"#, HIDDEN),
        (r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#, HIDDEN),
        ("5", "5", HIDDEN),
        ("5\n", "5", HIDDEN),
        ("-0", "0", HIDDEN),
        ("[ NaN, 1E400]", "[NaN, Infinity]", HIDDEN),
        ("5 a", "5 a", SAME),
        (" a\r\n", " a\r\n", SAME),
        ("a\r\n", "a\n", DIFFERENT),
        (r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#, DIFFERENT),
        ("[1, 2]", "[1]", DIFFERENT),
        ("1", "\"1\"", DIFFERENT),
        // Secrets, by the name of a key or since Airflow has met the text before.
        ("hunter2", "***", HIDDEN),
        (r#"{"k": 1, "password": "p"}"#, r#"{"k": 1, "password": "***"}"#, HIDDEN),
        (r#"{"k": 2, "password": "p"}"#, r#"{"k": 1, "password": "***"}"#, DIFFERENT),
        (r#"{"password": {"a": 1}}"#, r#"{"password": "***"}"#, HIDDEN),
        ("host=a password=p end", "host=a password=*** end", HIDDEN),
        ("host=b password=p end", "host=a password=*** end", DIFFERENT),
        ("p and p", "*** and ***", HIDDEN),
        ("ab", "ab***b", DIFFERENT),
        // What is itself three stars cannot be told from a secret.
        ("***", "***", HIDDEN),
    ] {
        let comparison = variable(wanted, shown);
        assert_eq!((comparison.is_same(), comparison.is_certainly_same()), expected, "{wanted} beside {shown}");
    }
    let undecryptable = Shown { key: "k".into(), description: None, fields: Fields::Variable(None) };
    assert_eq!(undecryptable.compare(&EntryValue::Variable("x".into())).hidden, ["value"]);
}

#[test]
fn a_description_compares_without_the_mark() {
    let mark = Mark { sync: "app", store_id: "5f" };
    let wanted = EntryValue::read(EntryKind::Pools, json!({"slots": 2, "description": "d"})).expect("a pool");
    let shown = |description: &str, slots| Shown {
        key: "p".into(),
        description: Some(description.to_owned()),
        fields: Fields::Pool { slots, include_deferred: false },
    };
    assert!(shown(&mark.describe(Some("d")), 2).compare(&wanted).is_certainly_same());
    assert_eq!(shown(&mark.describe(None), 3).compare(&wanted).different, ["slots", "description"]);
    assert!(shown(&mark.describe(Some("d")), 2).mark() == Some(mark));
}

#[test]
fn what_a_list_of_connections_hides_or_lacks_is_not_known() {
    let wanted = |given| EntryValue::read(EntryKind::Connections, given).expect("a connection");
    let full = wanted(json!({"conn_type": "http", "host": "h", "port": 80, "password": "p", "extra": {"t": 1}}));
    let bare = wanted(json!({"conn_type": "http", "host": "h", "port": 80}));
    let shown = |password, extra| Shown {
        key: "c".into(),
        description: None,
        fields: Fields::Connection {
            conn_type: Some("http".into()),
            host: Some("h".into()),
            login: Some(String::new()),
            schema: None,
            port: Some(80),
            password,
            extra,
        },
    };
    let text = |text: &str| Told::Field(Some(text.to_owned()));
    let (none, lacking) = (Told::Field(None), Told::LeftOut);
    for (wanted, password, extra, different, hidden) in [
        (&full, text("***"), text(r#"{"t": 1}"#), vec![], vec!["password"]),
        (&full, text("***"), text(r#"{"t": "***"}"#), vec![], vec!["password", "extra"]),
        (&full, none.clone(), none.clone(), vec!["password", "extra"], vec![]),
        (&full, text(""), text("{}"), vec!["password", "extra"], vec![]),
        (&full, lacking.clone(), lacking.clone(), vec![], vec!["password", "extra"]),
        (&bare, none.clone(), none.clone(), vec![], vec![]),
        (&bare, text(""), text("{}"), vec![], vec![]),
        (&bare, text("***"), none.clone(), vec!["password"], vec![]),
        (&bare, lacking.clone(), lacking, vec![], vec!["password", "extra"]),
    ] {
        let comparison = shown(password, extra).compare(wanted);
        assert_eq!((comparison.different, comparison.hidden), (different, hidden));
    }
}
