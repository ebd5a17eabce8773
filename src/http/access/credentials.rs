//! The token that a request carries.
//!
//! Programs send it as `Authorization: Bearer …`. Browsers ask their user and send it as the password of
//! basic authentication, whatever the user name. They do that by themselves, also for pages of other
//! sites, so nothing is changed on the strength of it.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The token; `reads` says that nothing is changed with it.
pub(super) fn token(headers: &HeaderMap, reads: bool) -> Option<String> {
    let (scheme, given) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let given = given.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(given.to_owned());
    }
    if reads && scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(STANDARD.decode(given).ok()?).ok()?;
        return decoded.split_once(':').map(|(_, password)| password.to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_token_comes_as_such_or_as_a_password_for_reading() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        // What is sent, and the token for reading and for changing something.
        let cases = [
            ("Bearer abc".to_owned(), Some("abc"), Some("abc")),
            ("bearer  abc ".to_owned(), Some("abc"), Some("abc")),
            (basic("me:abc"), Some("abc"), None),
            (basic(":a:b:c"), Some("a:b:c"), None),
            (basic("me:"), Some(""), None),
            (basic("abc"), None, None),
            ("Basic !".to_owned(), None, None),
            (format!("Basic {}", STANDARD.encode(b"me:\xff")), None, None),
            ("Digest abc".to_owned(), None, None),
            ("abc".to_owned(), None, None),
        ];
        for (sent, reading, changing) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&sent).expect("a value"));
            assert_eq!(token(&headers, true).as_deref(), reading, "{sent}");
            assert_eq!(token(&headers, false).as_deref(), changing, "{sent}");
        }
        assert_eq!(token(&HeaderMap::new(), true), None);
    }
}
