//! Ports for servers that are ended and started again while a test runs.
//!
//! A port that the system gives out (bind to 0) is one that it also gives to outgoing connections.
//! While its server is down, such a connection may hold it, and the server cannot come back. So
//! these are taken from below that range, at random: several tests look for one at the same time.

use std::net::TcpListener;

/// Ports from here are left to servers.
const LOWEST: u16 = 15_000;

/// The lowest port that Linux gives to outgoing connections, unless it was told otherwise.
const OUTGOING: u16 = 32_768;

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    loop {
        let random = uuid::Uuid::new_v4().as_u128() % u128::from(OUTGOING - LOWEST);
        let port = LOWEST + u16::try_from(random).expect("less than the range is wide");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
