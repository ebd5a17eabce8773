//! When an X.509 certificate ends.
//!
//! Pure, and no more than that: whether a certificate is to be trusted is decided by rustls. The
//! structure is that of RFC 5280, section 4.1, in DER (X.690).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity; `None` when the bytes are no certificate.
pub(super) fn ends(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut fields, _) = element(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = any(fields)?.2;
    }
    // The serial number, the signature's algorithm and the issuer stand before the validity.
    for _ in 0..3 {
        fields = any(fields)?.2;
    }
    let (validity, _) = element(fields, SEQUENCE)?;
    let (_, _, not_after) = any(validity)?;
    let (tag, text, _) = any(not_after)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// The content of the first element, which has this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the first element, and what follows it.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // A long length: so many bytes of it follow.
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        (digits.iter().fold(0, |length, &digit| (length << 8) | usize::from(digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from 2050 on.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let written = match tag {
        UTC_TIME => {
            let century = if text.get(..2)?.parse::<u8>().ok()? >= 50 { "19" } else { "20" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", written).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Self-signed, made with `openssl ca -selfsign -startdate … -enddate …`.
    const UNTIL_2030: &[u8] = include_bytes!("../fixtures/certificate-2030.der");
    const UNTIL_2060: &[u8] = include_bytes!("../fixtures/certificate-2060.der");

    #[test]
    fn the_end_is_read_in_both_spellings() {
        for (der, end) in [(UNTIL_2030, "2030-06-01T12:00:00Z"), (UNTIL_2060, "2060-01-02T03:04:05Z")] {
            assert_eq!(ends(der), Some(end.parse().unwrap()));
            for cut in 0..der.len() {
                assert!(ends(&der[..cut]).is_none(), "cut after {cut} bytes");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes: Vec<u8>, at: usize, value: u8) {
            ends(&bytes);
            let mut damaged = UNTIL_2030.to_vec();
            let at = at % damaged.len();
            damaged[at] = value;
            ends(&damaged);
        }
    }
}
