//! Small texts of faults: suggestions and lists.

/// `did you mean …?` when one of the known names is near, otherwise `{otherwise}: a, b, c`.
pub(super) fn did_you_mean(written: &str, known: &[&str], otherwise: &str) -> String {
    match nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("{otherwise}: {}", known.join(", ")),
    }
}

/// The known name that `written` was probably meant to be.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&written, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.chars().count().max(written.chars().count()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The plural `s`.
pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
