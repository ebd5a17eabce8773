//! Taking secrets out of what somebody answers who was told them.
//!
//! A server may repeat what it was sent: a refused login with the password in it, a page of a proxy with all
//! headers. What flowkeeper shows of answers goes through here first, since only whoever asked knows what is
//! secret in an answer.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Secret;

/// Stands in place of a secret.
const HIDDEN: &str = "…";

/// A secret shorter than this, in characters, is part of too many words to be taken out of a text.
const SHORTEST: usize = 4;

/// The secrets that are taken out. Cheap to clone.
#[derive(Clone, Default)]
pub struct Redaction(Arc<[String]>);

impl Redaction {
    /// Takes out these, as they are and as JSON and URLs write them.
    pub fn of<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let mut forms: Vec<String> = secrets.into_iter().flat_map(|secret| forms(secret.expose())).collect();
        // A longer one may have a shorter one in it.
        forms.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        forms.dedup();
        Self(forms.into())
    }

    /// The text without the secrets. Of a text with a very short one in it nothing is left: what is missing
    /// would tell what it is.
    pub fn apply(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for form in self.0.iter().filter(|form| text.contains(form.as_str())) {
            if form.chars().count() < SHORTEST {
                return HIDDEN.to_owned();
            }
            shown = shown.replace(form, HIDDEN);
        }
        shown
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redaction({})", self.0.len())
    }
}

fn forms(secret: &str) -> Vec<String> {
    if secret.is_empty() {
        return Vec::new();
    }
    let in_json = |text: &str| {
        let quoted = serde_json::Value::from(text).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    // A body that was JSON may be a text in the JSON of the answer.
    let (once, twice) = (in_json(secret), in_json(&in_json(secret)));
    vec![secret.to_owned(), once, twice, utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_taken_out_of_an_answer() {
        let cases: [(&[&str], &str, &str); 8] = [
            (&[], "no such user", "no such user"),
            (&["hunter2"], "bad password hunter2 for me", "bad password … for me"),
            (&["hunter2"], "hunter2hunter2", "……"),
            (&["p\"w\\d"], r#"{"input": "p\"w\\d"}"#, r#"{"input": "…"}"#),
            (&["p w/d"], "?password=p%20w%2Fd&x", "?password=…&x"),
            (&["hunter", "hunter2hunter"], "is hunter2hunter, was hunter", "is …, was …"),
            (&["a"], "what a pity", "…"),
            (&[""], "what a pity", "what a pity"),
        ];
        for (secrets, answer, shown) in cases {
            let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
            let redaction = Redaction::of(&secrets);
            assert_eq!(redaction.apply(answer), shown);
            assert!(!format!("{redaction:?}").contains("hunter"));
        }
    }
}
