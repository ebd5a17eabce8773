//! An Airflow in this process: fast, honest about its unique keys, and unkind on request.
//!
//! Tests and benches edit a plain [`World`] (DAGs, runs, faults) and [`FakeAirflow`] serves it over
//! HTTP as Airflow 3 (API v2) or Airflow 2 (API v1) would. `contract` sends the same requests to it and
//! to real Airflows. It knows nothing of flowkeeper but its clock, and no other test module.

#![allow(dead_code, reason = "each binary that includes it uses a part of it")]
#![allow(unreachable_pub, reason = "it is included by path from several binaries")]

mod entries;
mod routes;
mod server;
mod world;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[allow(unused_imports, reason = "each binary that includes it uses a part of it")]
pub use world::{Dag, Fault, Process, Run, State, Version, World};

/// A running fake. Dropping it ends it, with every connection.
pub struct FakeAirflow {
    world: Arc<Mutex<World>>,
    address: SocketAddr,
    accept: tokio::task::JoinHandle<()>,
}

impl FakeAirflow {
    /// Serves `world` on a port that the system chooses.
    pub async fn start(world: World) -> Self {
        Self::start_on(world, "127.0.0.1:0").await
    }

    /// Serves `world` on this address, that of an earlier fake for example.
    pub async fn start_on(world: World, address: &str) -> Self {
        let listener = server::bind(address).await;
        let address = listener.local_addr().expect("a listener has an address");
        let world = Arc::new(Mutex::new(world));
        let accept = tokio::spawn(server::accept(listener, Arc::clone(&world)));
        Self { world, address, accept }
    }

    /// Where it listens, as `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests this route has had.
    pub fn count(&self, route: &str) -> u64 {
        self.world().count(route)
    }

    /// The world that it serves, to look at and to edit. Nothing is served while it is held, and one
    /// statement must not ask for it twice.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops serving, as a crashed API server does, and gives back the world for another start.
    pub async fn stop(self) -> World {
        self.accept.abort();
        let world = std::mem::take(&mut *self.world());
        // The port is free for the next fake once the accepting task is gone.
        while !self.accept.is_finished() {
            tokio::task::yield_now().await;
        }
        world
    }
}

impl Drop for FakeAirflow {
    fn drop(&mut self) {
        self.accept.abort();
    }
}
