//! The line that says which version a file was made from. `config pull` writes it on top of the file, and
//! `config push` goes by it; it is no part of what is pushed. Pure.

/// What the line begins with.
const MARK: &str = "# flowkeeper version ";

/// How long a version is, in hexadecimal digits.
const VERSION_DIGITS: usize = 12;

/// The text with a line on top for this version.
pub fn with_base(version: &str, text: &str) -> String {
    format!("{MARK}{version}: `config push` goes by this line, keep it on top\n{text}")
}

/// The version of the line on top, if there is one, and the rest of the text.
pub fn without_base(text: &str) -> (Option<&str>, &str) {
    let Some(rest) = text.strip_prefix(MARK) else { return (None, text) };
    let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
    match line.get(..VERSION_DIGITS) {
        Some(version) if version.bytes().all(|byte| byte.is_ascii_hexdigit()) => (Some(version), after),
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_comes_off_as_it_went_on() {
        for text in ["", "a = 1\n", "# a comment\n", "# flowkeeper version of mine\na = 1\n"] {
            assert_eq!(without_base(&with_base("0123456789ab", text)), (Some("0123456789ab"), text));
            assert_eq!(without_base(text), (None, text));
        }
        assert_eq!(without_base("# flowkeeper version 0123456789ab"), (Some("0123456789ab"), ""));
        assert_eq!(without_base("# flowkeeper version 0123").0, None);
        assert_eq!(without_base("# flowkeeper version äääääääääääää\n").0, None);
    }
}
