//! Where an ensemble is: by its servers and its chroot it is known again, where nothing in it tells.
//!
//! Other ensembles than the home one hold nothing of flowkeeper's, and zxids of two ensembles cannot be
//! compared: one may be ahead of the other. Servers come and go, so an ensemble that still has one of them,
//! and shows the same part of its tree, is taken for the same; one that has none may be another.

use std::collections::BTreeSet;

/// The servers of a connect string, and the chroot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    servers: BTreeSet<String>,
    chroot: String,
}

impl Whereabouts {
    /// Of `host:port,host:port/chroot`, as the configuration has it; 2181 is the port where there is none.
    pub fn of(connect: &str) -> Self {
        let (servers, chroot) = match connect.split_once('/') {
            Some((servers, chroot)) => (servers, chroot.trim_matches('/')),
            None => (connect, ""),
        };
        let server = |server: &str| {
            let server = server.trim().to_ascii_lowercase();
            let has_port = server.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            if has_port { server } else { format!("{server}:2181") }
        };
        Self { servers: servers.split(',').map(server).collect(), chroot: chroot.to_owned() }
    }

    /// Whether both may be the same ensemble.
    pub fn may_be(&self, other: &Self) -> bool {
        self.chroot == other.chroot && !self.servers.is_disjoint(&other.servers)
    }
}

impl std::fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, server) in self.servers.iter().enumerate() {
            write!(f, "{}{server}", if index == 0 { "" } else { "," })?;
        }
        if self.chroot.is_empty() { Ok(()) } else { write!(f, "/{}", self.chroot) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ensemble_is_known_again_by_one_of_its_servers_and_its_chroot() {
        for (case, one, other, expected) in [
            ("as it was", "a:1,b:1", "a:1,b:1", true),
            ("in another order, spelled otherwise", "a:1,b:1", "B:1, A:1", true),
            ("one more", "a:1", "a:1,b:1", true),
            ("one less", "a:1,b:1", "b:1", true),
            ("replaced but for one", "a:1,b:1,c:1", "c:1,d:1,e:1", true),
            ("all of them", "a:1,b:1", "c:1,d:1", false),
            ("another port of the same host", "a:1", "a:2", false),
            ("the port that is meant without one", "a", "a:2181", true),
            ("the same chroot", "a:1/x/y", "a:1/x/y/", true),
            ("no chroot, spelled out", "a:1", "a:1/", true),
            ("another chroot", "a:1/x", "a:1/y", false),
            ("a chroot that was not there", "a:1", "a:1/y", false),
            ("addresses", "[::1]:1", "[::1]:1,[::2]:1", true),
        ] {
            let (one, other) = (Whereabouts::of(one), Whereabouts::of(other));
            assert_eq!(one.may_be(&other), expected, "{case}");
            assert_eq!(other.may_be(&one), expected, "{case}, the other way round");
            assert_eq!(Whereabouts::of(&one.to_string()), one, "{case}: what is kept is read again");
        }
    }
}
