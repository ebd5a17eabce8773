//! A set of definitions as bytes of znodes: one bundle, in as many pieces as ZooKeeper wants.
//!
//! The znode `config` holds JSON: who pushed which version when and why, and the documents themselves.
//! A set that is too large for one znode is cut into parts; each is named by the digest of what is in
//! it, so that a part never changes, and the znode `config` lists the names. Text that is TOML and not
//! JSON is a set as well: that of somebody who wrote the znode by hand. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::config::{Document, version_of};

/// The largest part, in bytes: servers take requests of 1 MiB (`jute.maxbuffer`), path and all.
const PART_MAX_BYTES: usize = 900_000;

/// The most parts, for 64 MiB: who reads keeps them all in memory, and anybody who may write the znode can list
/// one of them again and again.
const PARTS_MAX: usize = 80;

/// What a program must know to read a bundle.
const FORMAT: u32 = 1;

/// The name of the document of somebody who wrote plain TOML.
const PLAIN_NAME: &str = "config";

/// A set that was pushed, with what is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The digest of the documents.
    pub version: String,
    /// When it was pushed; of plain text, nobody knows.
    pub at: Option<Timestamp>,
    /// Who pushed it.
    pub author: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// Tells this push from any other with the same documents.
    pub push: Option<String>,
    /// What it says.
    pub documents: Vec<Document>,
}

/// Why a znode holds no set; fits "the znode … …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rubbish {
    /// It is not UTF-8.
    #[error("holds something else than text")]
    NotText,
    /// It begins like JSON and is something else.
    #[error("holds JSON that is no set of definitions: {0}")]
    NotABundle(String),
    /// A newer program wrote it.
    #[error("was written by a newer version of flowkeeper (format {0})")]
    Newer(u32),
    /// The documents are others than those that were pushed.
    #[error("holds other text than was pushed: its digest is {found}, and it says {told}")]
    Altered {
        /// The digest that it tells.
        told: String,
        /// That of the documents.
        found: String,
    },
    /// A part that it lists is not there, or is not what its name says.
    #[error("lists a part that is {0}")]
    Part(&'static str),
}

impl Rubbish {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Newer(_) => "upgrade this member",
            _ => "`flowkeeper config push FILE` or `flowkeeper config rollback VERSION` writes it anew",
        }
    }
}

/// The JSON in the znode `config`.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    format: u32,
    version: String,
    at: Option<Timestamp>,
    author: Option<String>,
    message: Option<String>,
    push: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    documents: Option<Vec<Document>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parts: Vec<String>,
}

/// A piece of a large set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The digest of the data, in hexadecimal; the name of its znode.
    pub name: String,
    /// A piece of the documents as JSON.
    pub data: Vec<u8>,
}

/// A set, laid out for ZooKeeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What the znode `config` is to hold, once the parts are there.
    pub manifest: Vec<u8>,
    /// In their order; none where the manifest has it all.
    pub parts: Vec<Part>,
}

/// Lays a set out; the error is its size in bytes, which is too much.
pub fn lay_out(bundle: &Bundle) -> Result<Layout, usize> {
    lay_out_in(bundle, PART_MAX_BYTES)
}

fn lay_out_in(bundle: &Bundle, part_max_bytes: usize) -> Result<Layout, usize> {
    let mut written = Written {
        format: FORMAT,
        version: bundle.version.clone(),
        at: bundle.at,
        author: bundle.author.clone(),
        message: bundle.message.clone(),
        push: bundle.push.clone(),
        documents: Some(bundle.documents.clone()),
        parts: Vec::new(),
    };
    let whole = json(&written);
    if whole.len() <= part_max_bytes {
        return Ok(Layout { manifest: whole, parts: Vec::new() });
    }
    let documents = json(&bundle.documents);
    if documents.len() > part_max_bytes * PARTS_MAX {
        return Err(documents.len());
    }
    let parts: Vec<Part> =
        documents.chunks(part_max_bytes).map(|data| Part { name: digest(data), data: data.to_vec() }).collect();
    written.documents = None;
    written.parts = parts.iter().map(|part| part.name.clone()).collect();
    Ok(Layout { manifest: json(&written), parts })
}

/// What the znode `config` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// Nothing: nobody has pushed yet, or somebody has emptied it.
    Empty,
    /// The whole set.
    Whole(Bundle),
    /// A set whose documents are in these parts.
    Parts {
        /// The set, still without documents.
        bundle: Bundle,
        /// The names of the parts, in their order.
        parts: Vec<String>,
    },
}

/// Reads what the znode `config` holds.
pub fn read(data: &[u8]) -> Result<Manifest, Rubbish> {
    let text = std::str::from_utf8(data).map_err(|_| Rubbish::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        None => Ok(Manifest::Empty),
        // No TOML begins like this.
        Some('{') => read_json(text),
        Some(_) => {
            let documents = vec![Document { name: PLAIN_NAME.to_owned(), text: text.to_owned() }];
            let version = version_of(&documents);
            Ok(Manifest::Whole(Bundle { version, at: None, author: None, message: None, push: None, documents }))
        }
    }
}

fn read_json(text: &str) -> Result<Manifest, Rubbish> {
    #[derive(Deserialize)]
    struct Formatted {
        format: u32,
    }
    let refused = |error: serde_json::Error| Rubbish::NotABundle(what_is_wrong(&error));
    let Formatted { format } = serde_json::from_str(text).map_err(refused)?;
    if format > FORMAT {
        return Err(Rubbish::Newer(format));
    }
    let Written { version, at, author, message, push, documents, parts, .. } =
        serde_json::from_str(text).map_err(refused)?;
    let bundle = Bundle { version, at, author, message, push, documents: Vec::new() };
    match documents {
        Some(documents) => Ok(Manifest::Whole(verified(Bundle { documents, ..bundle })?)),
        None if parts.is_empty() => Err(Rubbish::NotABundle("it has neither documents nor parts".to_owned())),
        None if parts.len() > PARTS_MAX || !parts.iter().all(|name| is_part(name)) => {
            Err(Rubbish::NotABundle("its parts are none".to_owned()))
        }
        None => Ok(Manifest::Parts { bundle, parts }),
    }
}

/// Where JSON is wrong, and how, without what stands there: it may be a set that somebody pasted in a wrong place,
/// with all that is in it.
fn what_is_wrong(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "it has other fields or types",
        serde_json::error::Category::Eof => "it breaks off",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is no JSON",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

/// Puts a set together; `parts` are in the order of the manifest.
pub fn join(bundle: Bundle, parts: &[Part]) -> Result<Bundle, Rubbish> {
    if parts.iter().any(|part| digest(&part.data) != part.name) {
        return Err(Rubbish::Part("not what its name says"));
    }
    let data: Vec<u8> = parts.iter().flat_map(|part| part.data.iter().copied()).collect();
    let documents = serde_json::from_slice(&data).map_err(|error| Rubbish::NotABundle(what_is_wrong(&error)))?;
    verified(Bundle { documents, ..bundle })
}

fn verified(bundle: Bundle) -> Result<Bundle, Rubbish> {
    let found = version_of(&bundle.documents);
    if found == bundle.version { Ok(bundle) } else { Err(Rubbish::Altered { told: bundle.version, found }) }
}

/// Whether a znode of this name is a part.
pub fn is_part(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Texts, numbers and times: all of it has a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What it is, the data, and what is told of it.
    type Case = (&'static str, Vec<u8>, fn(&Rubbish) -> bool);

    fn bundle(texts: &[&str]) -> Bundle {
        let documents: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(number, text)| Document { name: format!("{number}.toml"), text: (*text).to_owned() })
            .collect();
        Bundle {
            version: version_of(&documents),
            at: "2026-11-22T02:30:00Z".parse().ok(),
            author: Some("alice@laptop".into()),
            message: Some("more ‚Läden‘".into()),
            push: Some("7".into()),
            documents,
        }
    }

    /// What readers make of a layout.
    fn read_back(layout: &Layout) -> Result<Bundle, Rubbish> {
        match read(&layout.manifest)? {
            Manifest::Whole(bundle) => Ok(bundle),
            Manifest::Parts { bundle, parts } => {
                let found: Vec<_> = parts
                    .iter()
                    .filter_map(|name| layout.parts.iter().find(|part| part.name == *name).cloned())
                    .collect();
                join(bundle, &found)
            }
            Manifest::Empty => panic!("nothing was written"),
        }
    }

    #[test]
    fn a_set_is_read_as_it_was_written_in_however_many_parts() {
        for texts in [&[][..], &[""], &["a = 1\n"], &["ä\n", "\"\\\u{1f600}\""], &["x"; 50]] {
            let bundle = bundle(texts);
            for part_max_bytes in [7, 64, 1 << 20] {
                let Ok(layout) = lay_out_in(&bundle, part_max_bytes) else {
                    assert_eq!((part_max_bytes, texts.len()), (7, 50));
                    continue;
                };
                assert!(layout.parts.iter().all(|part| part.data.len() <= part_max_bytes));
                assert_eq!(layout.parts.is_empty(), part_max_bytes == 1 << 20);
                assert_eq!(read_back(&layout).as_ref(), Ok(&bundle));
            }
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let bundle = bundle(&["x".repeat(10 * PARTS_MAX).as_str()]);
        assert!(lay_out_in(&bundle, 10).is_err_and(|size| size > 10 * PARTS_MAX));
    }

    #[test]
    fn what_people_write_by_hand_is_toml() {
        for text in ["[airflow.main]\nurl = \"u\"\n", "\u{feff}# {\n", "[[schedule]]", "not TOML at all"] {
            let Ok(Manifest::Whole(bundle)) = read(text.as_bytes()) else { panic!("{text}") };
            assert_eq!((bundle.documents.len(), bundle.documents[0].name.as_str()), (1, "config"));
            assert_eq!(bundle.version, version_of(&bundle.documents));
            assert!(bundle.author.is_none() && bundle.at.is_none());
        }
        for nothing in ["", " \n", "\u{feff}"] {
            assert_eq!(read(nothing.as_bytes()), Ok(Manifest::Empty));
        }
    }

    #[test]
    fn rubbish_is_told_from_a_set() {
        let whole = |change: fn(&mut serde_json::Value)| {
            let layout = lay_out(&bundle(&["a = 1\n"])).unwrap();
            let mut value: serde_json::Value = serde_json::from_slice(&layout.manifest).unwrap();
            change(&mut value);
            value.to_string().into_bytes()
        };
        let cases: [Case; 10] = [
            ("bytes", b"\xff\xfe".to_vec(), |r| *r == Rubbish::NotText),
            ("JSON that breaks off", b"{\"format\": 1".to_vec(), |r| matches!(r, Rubbish::NotABundle(_))),
            (
                "a text where documents belong",
                br#"{"format": 1, "version": "x", "documents": "s3cr3t"}"#.to_vec(),
                |r| matches!(r, Rubbish::NotABundle(what) if what.starts_with("it has other fields or types at line 1")),
            ),
            ("other JSON", b"{\"schedule\": []}".to_vec(), |r| matches!(r, Rubbish::NotABundle(_))),
            ("nothing in it", b"{\"format\": 1, \"version\": \"x\"}".to_vec(), |r| matches!(r, Rubbish::NotABundle(_))),
            ("a newer one", b"{\"format\": 2, \"shape\": []}".to_vec(), |r| *r == Rubbish::Newer(2)),
            ("another text", whole(|v| v["documents"][0]["text"] = "a = 2\n".into()), |r| {
                matches!(r, Rubbish::Altered { .. })
            }),
            ("another version", whole(|v| v["version"] = "0".into()), |r| matches!(r, Rubbish::Altered { .. })),
            (
                "parts outside",
                whole(|v| {
                    v["documents"] = serde_json::Value::Null;
                    v["parts"] = serde_json::json!(["../store"]);
                }),
                |r| matches!(r, Rubbish::NotABundle(_)),
            ),
            ("a field that is not known", whole(|v| v["documents"][0]["mode"] = 7.into()), |r| {
                matches!(r, Rubbish::NotABundle(_))
            }),
        ];
        for (case, data, expected) in cases {
            match read(&data) {
                Err(rubbish) => assert!(expected(&rubbish), "{case}: {rubbish}"),
                Ok(read) => panic!("{case}: {read:?}"),
            }
        }
    }

    #[test]
    fn a_part_that_is_another_is_noticed() {
        let bundle = bundle(&["some text", "more"]);
        let layout = lay_out_in(&bundle, 20).unwrap();
        assert!(layout.parts.len() > 2);
        let mut altered = layout.clone();
        altered.parts[1].data[0] ^= 1;
        assert_eq!(read_back(&altered), Err(Rubbish::Part("not what its name says")));
        let mut missing = layout;
        missing.parts.pop();
        assert!(read_back(&missing).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            drop(read(&data));
            drop(read(text.as_bytes()));
            drop(read(format!("{{\"format\":1,{text}").as_bytes()));
        }
    }
}
