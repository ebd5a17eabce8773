//! Arbitrary bytes are a fault at worst.

use proptest::prelude::*;

use super::check_files;
use crate::config::{Severity, render};

/// Pieces of configuration, so that arbitrary files get beyond the first line.
fn configuration() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(vec![
        "[server]\n",
        "[[server.token]]\n",
        "[log]\n",
        "[store]\n",
        "[zookeeper]\n",
        "[airflow.main]\n",
        "[ensemble.x]\n",
        "[defaults]\n",
        "[[schedule]]\n",
        "[schedule.znode]\n",
        "[schedule.conf]\n",
        "include = [\"*.toml\"]\n",
        "listen = ",
        "name = ",
        "value = ",
        "url = ",
        "connect = ",
        "root = ",
        "auth = ",
        "tls = ",
        "sasl = ",
        "cron = ",
        "dag = ",
        "znode = ",
        "path = ",
        "watch = ",
        "on = ",
        "when = ",
        "conf = ",
        "initial = ",
        "timezone = ",
        "retry = ",
        "deadline = ",
        "dst = ",
        "settle = ",
        "batch = ",
        "consume = ",
        "monitor = ",
        "in_flight = ",
        "thresholds = ",
        "was = ",
        "lock = ",
        "overlap = ",
        "retention = ",
        "headers = ",
        "\"a\"\n",
        "\"/a/b\"\n",
        "\"*/5 * * * *\"\n",
        "\"{{ znode.text }}\"\n",
        "\"5m\"\n",
        "5\n",
        "-1\n",
        "1e400\n",
        "true\n",
        "[]\n",
        "[\"created\", 1]\n",
        "{ env = \"A\" }\n",
        "{ path = \"/x\", consume = \"accepted\" }\n",
        "{}\n",
        "{ a = { b = [inf, nan, 1979-05-27] } }\n",
        "'''\n",
        "\"\"\"\n",
        "\u{feff}",
        "\0",
        "ü\n",
        "\r\n",
        "\\u0000",
        "=",
        "[[",
        "]]",
    ]);
    prop_oneof![
        1 => any::<Vec<u8>>(),
        4 => proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_file_panics_and_every_fault_has_a_place(
        content in configuration(),
        variable in "[A-Z_]{0,12}(__[A-Z]{0,8}){0,3}",
        value in any::<String>(),
    ) {
        let value = value.replace('\0', "");
        let name = format!("FLOWKEEPER_{variable}");
        let (result, directory) = check_files(&[("flowkeeper.toml", &content)], &[(&name, &value)]);
        let faults = match result {
            Ok((_, warnings)) => {
                prop_assert!(warnings.iter().all(|fault| fault.severity == Severity::Warning));
                warnings
            }
            Err(faults) => {
                prop_assert!(faults.faults.iter().any(|fault| fault.severity == Severity::Error));
                faults.faults
            }
        };
        let text = String::from_utf8_lossy(&content);
        let lines = text.split('\n').count();
        for fault in &faults {
            prop_assert!(fault.line <= lines, "{fault:?}");
            prop_assert!(fault.line > 0 || fault.file == name || fault.file.starts_with(&directory), "{fault:?}");
            prop_assert!(!fault.message.is_empty() && fault.hint.is_some(), "{fault:?}");
        }
        // No form of the output fails, and an annotation is one line whatever the text.
        let _ = (render::human(&faults, render::Color::On), render::json(&faults));
        prop_assert_eq!(render::github(&faults).lines().count(), faults.len());
    }
}
