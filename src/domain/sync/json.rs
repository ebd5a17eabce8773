//! JSON in the text of a value, as Airflow 3 reads it: with Python's `json`, which takes `NaN` and `Infinity`
//! too, and refuses whole numbers that are very long.
//!
//! Texts are looked at word by word and never as a tree, so that no nesting is too deep, no number too large,
//! and nothing of how a number is written is lost.

use super::shown::Likeness;

/// A word of JSON.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Word<'a> {
    /// `[`, `]`, `{`, `}`, `,` or `:`.
    Mark(u8),
    /// A text with its quotes, as it is written.
    Text(&'a str),
    /// A number, as it is written.
    Number(&'a str),
    /// `true`, `false` or `null`.
    Name(&'a str),
}

/// What Python takes for numbers and JSON does not have.
const NO_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// The next word, and what follows it; `None` where no word begins.
fn next(text: &str) -> Option<(Word<'_>, &str)> {
    let first = *text.as_bytes().first()?;
    let cut = |at: usize| (&text[..at], &text[at..]);
    match first {
        b'[' | b']' | b'{' | b'}' | b',' | b':' => Some((Word::Mark(first), &text[1..])),
        b'"' => {
            let mut is_escaped = false;
            let end = text.bytes().skip(1).position(|byte| {
                let is_end = byte == b'"' && !is_escaped;
                is_escaped = byte == b'\\' && !is_escaped;
                is_end
            })?;
            let (word, rest) = cut(end + 2);
            Some((Word::Text(word), rest))
        }
        _ => {
            let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
            let (word, rest) = cut(text.find(|c| !is_part(c)).unwrap_or(text.len()));
            match word {
                "true" | "false" | "null" => Some((Word::Name(word), rest)),
                _ if NO_NUMBERS.contains(&word) || is_number(word) => Some((Word::Number(word), rest)),
                _ => None,
            }
        }
    }
}

fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c))
        && word.parse::<f64>().is_ok()
}

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// All words of a text; `None` when it is no JSON.
fn words(text: &str) -> Option<Vec<Word<'_>>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(blank);
    while !rest.is_empty() {
        let (word, after) = next(rest)?;
        words.push(word);
        rest = after.trim_start_matches(blank);
    }
    (!words.is_empty()).then_some(words)
}

/// Whether Airflow 3 reads the text as JSON, and so shows it written anew. What only looks like it counts too.
pub(super) fn is_json(text: &str) -> bool {
    words(text).is_some()
}

/// Whether two texts are the same JSON, however it is written, but for the order of the members of objects;
/// `texts` compares two texts within. `None` when one of them is no JSON.
pub(super) fn compare(wanted: &str, shown: &str, texts: impl Fn(&str, &str) -> Likeness) -> Option<Likeness> {
    let (wanted, shown) = (words(wanted)?, words(shown)?);
    if wanted.len() != shown.len() {
        return Some(Likeness::Different);
    }
    let mut likeness = Likeness::Same;
    for pair in wanted.into_iter().zip(shown) {
        let own = match pair {
            (Word::Text(wanted), Word::Text(shown)) => {
                let read = |text: &str| serde_json::from_str::<String>(text).ok();
                match (read(wanted), read(shown)) {
                    (Some(wanted), Some(shown)) => texts(&wanted, &shown),
                    // Half of a pair of surrogates, which no text of ours can hold.
                    _ => texts(wanted, shown),
                }
            }
            (Word::Number(wanted), Word::Number(shown)) if is_same_number(wanted, shown) => continue,
            (wanted, shown) if wanted == shown => continue,
            _ => return Some(Likeness::Different),
        };
        likeness = likeness.max(own);
    }
    Some(likeness)
}

/// Whether Python reads both as the same number: whole ones of any length, and others as the machine has them.
fn is_same_number(one: &str, other: &str) -> bool {
    let is_whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    match (is_whole(one), is_whole(other)) {
        (true, true) => one == other || (one == "-0" && other == "0") || (one == "0" && other == "-0"),
        (false, false) => one == other || one.parse::<f64>().ok() == other.parse::<f64>().ok(),
        _ => false,
    }
}

/// The text without what stands between its words, where that means nothing.
pub fn compact(text: &str) -> String {
    let mut compact = String::with_capacity(text.len());
    let (mut is_inside, mut is_escaped) = (false, false);
    for c in text.chars() {
        if is_inside || !blank(c) {
            compact.push(c);
        }
        is_inside = if c == '"' && !is_escaped { !is_inside } else { is_inside };
        is_escaped = is_inside && c == '\\' && !is_escaped;
    }
    compact
}

/// How deep the brackets of a text go that may be JSON, and how many digits its longest whole number has. A
/// text that begins otherwise has none.
pub fn extent(text: &str) -> (usize, usize) {
    let (mut depth, mut deepest, mut longest) = (0_usize, 0, 0);
    let mut rest = text.trim_start_matches(blank);
    while let Some((word, after)) = next(rest) {
        match word {
            Word::Mark(b'[' | b'{') => depth += 1,
            Word::Mark(b']' | b'}') => depth = depth.saturating_sub(1),
            Word::Number(number) if !number.contains(['.', 'e', 'E']) => {
                longest = longest.max(number.bytes().filter(u8::is_ascii_digit).count());
            }
            _ => {}
        }
        deepest = deepest.max(depth);
        rest = after.trim_start_matches(blank);
    }
    // Python reads the digits before it sees that something else follows them.
    let digits = rest.trim_start_matches('-').bytes().take_while(u8::is_ascii_digit).count();
    (deepest, longest.max(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_json_is_known_however_it_is_written() {
        let deep = |space: &str| format!("{}1{}", format!("[{space}").repeat(500), format!("{space}]").repeat(500));
        for (one, other, expected) in [
            (r#"{"a":1.50}"#, r#"{"a": 1.5}"#, Some(true)),
            (r#"["é"]"#, r#"["\u00e9"]"#, Some(true)),
            (r#"["\\", "\""]"#, r#"["\\","\""]"#, Some(true)),
            ("-0", "0", Some(true)),
            ("1E400", "Infinity", Some(true)),
            ("[ NaN]", "[NaN]", Some(true)),
            ("1e2", "100.0", Some(true)),
            ("1", "1.0", Some(false)),
            ("12345678901234567890123", "12345678901234567890124", Some(false)),
            (&deep(" "), &deep(""), Some(true)),
            ("[1]", "[1, 2]", Some(false)),
            ("true", "false", Some(false)),
            ("\"a", "\"a", None),
            ("x", "x", None),
            ("tru", "true", None),
            ("", "", None),
            ("1.2.3", "1.2.3", None),
        ] {
            let texts = |one: &str, other: &str| if one == other { Likeness::Same } else { Likeness::Different };
            let told = compare(one, other, texts).map(|likeness| likeness == Likeness::Same);
            assert_eq!(told, expected, "{one:.40} and {other:.40}");
        }
    }

    #[test]
    fn only_what_means_nothing_is_left_out() {
        for (text, expected) in [
            ("{ \"a b\" : [ 1.50 , -0 ] }\n", "{\"a b\":[1.50,-0]}"),
            (r#"" \" \\" "#, r#"" \" \\""#),
            ("12345678901234567890123", "12345678901234567890123"),
        ] {
            assert_eq!(compact(text), expected);
        }
    }

    #[test]
    fn depth_and_digits_are_those_that_python_meets() {
        for (text, expected) in [
            ("", (0, 0)),
            ("plain 123", (0, 0)),
            ("[[1], {\"a\": [22]}]", (3, 2)),
            ("[\"[[[[\", -333]", (1, 3)),
            ("[[[[", (4, 0)),
            ("4444.5", (0, 0)),
            // Cut off in the midst of what is no JSON.
            ("55555abc", (0, 5)),
            (" -1", (0, 1)),
        ] {
            assert_eq!(extent(text), expected, "{text}");
        }
    }
}
