//! `ensemble = { … }` of a schedule.

use super::super::section::Section;
use super::super::written;
use super::shared::Shared;
use crate::domain::schedule::EnsembleTrigger;

/// `ensemble = { … }`; which ensemble it is, is found out when all files have been read.
pub(super) fn ensemble_trigger(
    section: &Section<'_, '_>,
    written: written::EnsembleEvents,
    shared: &mut Shared,
) -> Option<EnsembleTrigger> {
    const HINT: &str = "name what fires: on = [\"degraded\", \"quorum_lost\", \"recovered\"]";
    let at = ["ensemble", "on"];
    let named = section.value(&at).and_then(|value| value.get_ref().as_array()).map_or(0, |array| array.len());
    let on = section.required(&at, written.on, HINT)?;
    // With one that could not be read there would be one.
    if named == 0 {
        section.error(&at, "nothing fires this trigger", HINT);
    }
    let ensemble = shared.name(written.name.as_deref().unwrap_or_default());
    Some(EnsembleTrigger { ensemble, on: on.into_iter().map(|choice| choice.0).collect() })
}
