//! Certificates for tests, made by the `openssl` command.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority that signs certificates, all in a directory that it removes at the end.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
}

/// Files with a certificate and its key, as PEM.
pub(crate) struct Certified {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// A new one, which nobody else trusts.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory for certificates");
        let authority = Self { directory };
        let (cert, key) = (authority.file("ca.pem"), authority.file("ca.key"));
        make(&cert, &key, "authority", &["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
        authority
    }

    /// The file to trust.
    pub(crate) fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A certificate for `name`, whose address is `127.0.0.1`.
    pub(crate) fn certify(&self, name: &str) -> Certified {
        let certified = Certified { cert: self.file(&format!("{name}.pem")), key: self.file(&format!("{name}.key")) };
        let (ca, ca_key) = (self.ca(), self.file("ca.key"));
        let signed = ["-CA", text(&ca), "-CAkey", text(&ca_key)];
        let extensions = ["basicConstraints=critical,CA:FALSE", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
        let extensions = extensions.iter().flat_map(|extension| ["-addext", extension]);
        let arguments: Vec<_> = signed.into_iter().chain(extensions).collect();
        make(&certified.cert, &certified.key, name, &arguments);
        certified
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn make(cert: &Path, key: &Path, name: &str, arguments: &[&str]) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-out", text(cert), "-keyout", text(key)])
        .args(arguments)
        .output()
        .expect("openssl starts: `apt-get install openssl`, or run the tests with `make test`");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
