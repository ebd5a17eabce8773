//! Secrets that can be found again: each has a random text in it, which is looked for in every form that it
//! may have got into a text.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// How much of a secret must not be seen either: an error may be cut in its middle.
const PART: usize = 12;

/// The secrets of a story.
#[derive(Default)]
pub(super) struct Marks {
    needles: Vec<(String, String)>,
}

impl Marks {
    /// A new secret: letters and digits, so that JSON and URLs write it as it is.
    pub(super) fn secret(&mut self, kind: &str) -> String {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let (first, second) = random.split_at(random.len() / 2);
        for half in [first, second] {
            self.needle(kind, &half[..PART]);
        }
        self.encodings(kind, &random);
        format!("sekret{random}")
    }

    /// A secret that somebody else has chosen.
    pub(super) fn known(&mut self, kind: &str, secret: &str) {
        self.needle(kind, secret);
        self.encodings(kind, secret);
        self.needle(kind, &utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string());
    }

    fn encodings(&mut self, kind: &str, secret: &str) {
        // Where base64 begins decides what it makes of a text; its first and last letters depend on what is around.
        for shift in 0..3 {
            let shifted = ["", "x", "xx"][shift].to_owned() + secret;
            for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
                self.needle(kind, &encoded[4..encoded.len() - 4]);
            }
        }
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16);
        let hex: String = secret.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).flatten().collect();
        self.needle(kind, &hex);
        self.needle(kind, &hex.to_uppercase());
    }

    fn needle(&mut self, kind: &str, needle: &str) {
        if !self.needles.iter().any(|(_, known)| known == needle) {
            self.needles.push((kind.to_owned(), needle.to_owned()));
        }
    }

    /// Each secret in a text, with what is around it.
    pub(super) fn found_in(&self, place: &str, text: &str) -> Vec<String> {
        let around = |at: usize, needle: &str| {
            let (from, to) = (at.saturating_sub(200), (at + needle.len() + 60).min(text.len()));
            text[text.floor_char_boundary(from)..text.ceil_char_boundary(to)].to_owned()
        };
        self.needles
            .iter()
            .filter_map(|(kind, needle)| {
                let at = text.find(needle.as_str())?;
                Some(format!("{kind} is in {place}: …{}…", around(at, needle)))
            })
            .collect()
    }
}
