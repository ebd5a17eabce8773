//! One session, which is one connection, and the requests through it.
//!
//! A request goes out when its method is called, in the order of the calls, and its answers come
//! back in that order: what is read later is never older. The first poll of the future belongs to
//! the answer only. Every request has a limit of time; one that runs into it leaves the outcome
//! open, and the session is given up, because the servers may still carry the request out.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use zookeeper_client::{Acl, Acls, AddWatchMode, Client, CreateMode, Error, OneshotWatcher, PersistentWatcher, Stat};

use super::error::ZooKeeperError;
use super::one_shot::{Attendance, OneShot};
use crate::domain::znode::ZnodeStat;

/// How long an answer may take. The client itself notices a silent connection after 0.4 of the
/// session timeout; this is for servers that answer pings and nothing else.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A session. Cheap to clone; once it is closed every request fails.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    number: u64,
    chroot: String,
    /// Who may touch the znodes that this session makes.
    acl: NewNodeAcl,
    attendance: Attendance,
    /// `None` once closed. The client lives on inside requests that are under way.
    client: RwLock<Option<Client>>,
    /// Wakes the ensemble, which closes the session and opens another.
    broken: Notify,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("number", &self.0.number).finish_non_exhaustive()
    }
}

/// How long a znode lives that is made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until somebody deletes it.
    Persistent,
    /// Until the session ends.
    Ephemeral,
}

/// The access control list of znodes that flowkeeper makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NewNodeAcl {
    /// A session without credentials: everybody may do everything.
    Anyone,
    /// Whoever has the credentials of this session may do everything, everybody else nothing.
    Creator,
}

impl NewNodeAcl {
    fn acls(self) -> Acls<'static> {
        match self {
            Self::Anyone => Acls::anyone_all(),
            Self::Creator => Acls::creator_all(),
        }
    }
}

impl Session {
    /// `attendance` is that of the client's connection.
    pub(super) fn new(number: u64, chroot: &str, acl: NewNodeAcl, client: Client, attendance: Attendance) -> Self {
        Self(Arc::new(Inner {
            number,
            chroot: chroot.to_owned(),
            acl,
            attendance,
            client: RwLock::new(Some(client)),
            broken: Notify::new(),
        }))
    }

    /// Counts the sessions of an ensemble; a higher number is a later session.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Says that this session is of no use any more; the ensemble replaces it.
    pub fn give_up(&self) {
        self.0.broken.notify_one();
    }

    pub(super) async fn given_up(&self) {
        self.0.broken.notified().await;
    }

    pub(super) fn close(&self) {
        self.0.client.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Data and stat of a znode in one read; `None` when there is no such znode.
    pub fn get_data(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Option<(Vec<u8>, ZnodeStat)>, ZooKeeperError>> + Send + use<> {
        let answer = self.send(|client| client.get_data(&self.absolute(path)));
        async move {
            match answer.await {
                Ok((data, stat)) => Ok(Some((data, stat_of(&stat)))),
                Err(Error::NoNode) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }

    /// Children (in no order) and stat of a znode in one read; `None` when there is no such znode.
    pub fn get_children(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Option<(Vec<String>, ZnodeStat)>, ZooKeeperError>> + Send + use<> {
        let answer = self.send(|client| client.get_children(&self.absolute(path)));
        async move {
            match answer.await {
                Ok((children, stat)) => Ok(Some((children, stat_of(&stat)))),
                Err(Error::NoNode) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }

    /// The stat of a znode; `None` when there is no such znode. Needs no permission.
    pub fn stat(&self, path: &str) -> impl Future<Output = Result<Option<ZnodeStat>, ZooKeeperError>> + Send + use<> {
        self.stat_of_absolute(&self.absolute(path))
    }

    fn stat_of_absolute(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Option<ZnodeStat>, ZooKeeperError>> + Send + use<> {
        let answer = self.send(|client| client.check_stat(path));
        async move { Ok(answer.await?.as_ref().map(stat_of)) }
    }

    /// Whether it has credentials, so that what it makes is for those alone who have them too.
    pub(super) fn keeps_znodes_to_itself(&self) -> bool {
        self.0.acl == NewNodeAcl::Creator
    }

    /// The access list of a znode; `None` when there is no such znode.
    pub(super) async fn get_acl(&self, path: &str) -> Result<Option<Vec<Acl>>, ZooKeeperError> {
        let client = self.client()?;
        match limited(client.get_acl(&self.absolute(path))).await {
            Ok((acl, _)) => Ok(Some(acl)),
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The stat of the nearest ancestor of `path` that exists, above the chroot too.
    pub async fn nearest_ancestor(&self, path: &str) -> Result<ZnodeStat, ZooKeeperError> {
        let mut path = self.absolute(path);
        loop {
            let slash = path.rfind('/').unwrap_or(0);
            path.truncate(slash.max(1));
            if let Some(stat) = self.stat_of_absolute(&path).await? {
                return Ok(stat);
            }
            if path.len() <= 1 {
                return Err(ZooKeeperError::Refused("the servers show no root znode".to_owned()));
            }
        }
    }

    /// Deletes a znode in this version of its data; `false` when there is no such znode.
    pub fn delete(
        &self,
        path: &str,
        version: i32,
    ) -> impl Future<Output = Result<bool, ZooKeeperError>> + Send + use<> {
        let answer = self.send(|client| client.delete(&self.absolute(path), Some(version)));
        async move {
            match answer.await {
                Ok(()) => Ok(true),
                Err(Error::NoNode) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
    }

    /// Makes a znode; `false` when there is one already. [`ZooKeeperError::NoParent`] without a parent.
    pub fn create(
        &self,
        path: &str,
        data: &[u8],
        lifetime: Lifetime,
    ) -> impl Future<Output = Result<bool, ZooKeeperError>> + Send + use<> {
        let mode = match lifetime {
            Lifetime::Persistent => CreateMode::Persistent,
            Lifetime::Ephemeral => CreateMode::Ephemeral,
        };
        let answer = self.make(path, data, mode);
        async move {
            match answer.await {
                Ok(_) => Ok(true),
                Err(Error::NodeExists) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
    }

    /// Makes a znode whose name is `prefix` and a number that the servers count up (ten digits); its
    /// path. Asked again after an unknown outcome it may leave two.
    pub fn create_sequential(
        &self,
        prefix: &str,
        data: &[u8],
        lifetime: Lifetime,
    ) -> impl Future<Output = Result<String, ZooKeeperError>> + Send + use<> {
        let mode = match lifetime {
            Lifetime::Persistent => CreateMode::PersistentSequential,
            Lifetime::Ephemeral => CreateMode::EphemeralSequential,
        };
        let answer = self.make(prefix, data, mode);
        let prefix = prefix.to_owned();
        async move { Ok(format!("{prefix}{}", answer.await?)) }
    }

    /// The sequence of the new znode as text; empty without one. Goes out at the first poll.
    fn make(&self, path: &str, data: &[u8], mode: CreateMode) -> BoxFuture<'static, Result<String, Error>> {
        let Ok(client) = self.client() else { return Box::pin(std::future::ready(Err(Error::ClientClosed))) };
        let (path, data, acls) = (self.absolute(path), data.to_owned(), self.0.acl.acls());
        Box::pin(limited(async move {
            let options = mode.with_acls(acls);
            let (_, sequence) = client.create(&path, &data, &options).await?;
            let sequential = matches!(mode, CreateMode::PersistentSequential | CreateMode::EphemeralSequential);
            Ok(if sequential { sequence.to_string() } else { String::new() })
        }))
    }

    /// Makes `path` and what is missing above it, empty and persistent. Concurrent callers are fine.
    pub async fn make_path(&self, path: &str) -> Result<(), ZooKeeperError> {
        let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).filter(|&at| at > 0).collect();
        ends.push(path.len());
        // From the far end: usually only the last is missing, or nothing is.
        let mut missing = ends.len();
        while missing > 0 {
            match self.create(&path[..ends[missing - 1]], b"", Lifetime::Persistent).await {
                Ok(_) => break,
                Err(ZooKeeperError::NoParent) => missing -= 1,
                Err(error) => return Err(error),
            }
        }
        for &end in &ends[missing..] {
            self.create(&path[..end], b"", Lifetime::Persistent).await?;
        }
        Ok(())
    }

    /// Sets the data of a znode, in this version only if one is given; the new version, or `None` when
    /// there is no such znode.
    pub fn set_data(
        &self,
        path: &str,
        data: &[u8],
        version: Option<i32>,
    ) -> impl Future<Output = Result<Option<i32>, ZooKeeperError>> + Send + use<> {
        let answer = self.send(|client| client.set_data(&self.absolute(path), data, version));
        async move {
            match answer.await {
                Ok(stat) => Ok(Some(stat.version)),
                Err(Error::NoNode) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }

    /// Who the members of the ensemble are, as the ensemble keeps it outside of every chroot; `None`
    /// where it does not.
    pub fn members(&self) -> impl Future<Output = Result<Option<Vec<u8>>, ZooKeeperError>> + Send + use<> {
        let answer = self.send(|client| client.get_data("/zookeeper/config"));
        async move {
            match answer.await {
                Ok((data, _)) => Ok(Some(data)),
                Err(Error::NoNode) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }

    /// Waits until this session's server has caught up with the leader of the ensemble.
    pub fn sync(&self) -> impl Future<Output = Result<(), ZooKeeperError>> + Send + use<> {
        let client = self.client();
        async move {
            let client = client?;
            Ok(limited(client.sync("/")).await?)
        }
    }

    /// Sets the one kind of watch that flowkeeper uses, on a path that need not exist.
    pub(super) fn watch(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<PersistentWatcher, ZooKeeperError>> + Send + use<> {
        let client = self.client();
        let path = self.absolute(path);
        async move {
            let client = client?;
            Ok(limited(client.watch(&path, AddWatchMode::PersistentRecursive)).await?)
        }
    }

    /// Whether a znode is there, and a watch that tells once when it is deleted, made or set.
    pub(super) async fn exists_and_watch(&self, path: &str) -> Result<(bool, OneShot), ZooKeeperError> {
        let client = self.client()?;
        let (stat, watcher) = limited(client.check_and_watch_stat(&self.absolute(path))).await?;
        Ok((stat.is_some(), self.one_shot(watcher)))
    }

    /// The children of a znode, and a watch that tells once when one comes or goes; `None` without
    /// such a znode.
    pub(super) async fn get_children_and_watch(
        &self,
        path: &str,
    ) -> Result<Option<(Vec<String>, OneShot)>, ZooKeeperError> {
        let client = self.client()?;
        match limited(client.list_and_watch_children(&self.absolute(path))).await {
            Ok((children, watcher)) => Ok(Some((children, self.one_shot(watcher)))),
            Err(Error::NoNode) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn one_shot(&self, watcher: OneshotWatcher) -> OneShot {
        OneShot::new(watcher, self.0.attendance.clone())
    }

    /// Whether a znode lives as long as this session does; `None` when there is no such znode. One
    /// that a session before this one made may still be there, and goes when the servers notice.
    pub(super) async fn owns(&self, path: &str) -> Result<Option<bool>, ZooKeeperError> {
        let client = self.client()?;
        let owner = client.session_id();
        let stat = limited(client.check_stat(&self.absolute(path))).await?;
        Ok(stat.map(|stat| stat.ephemeral_owner == owner.0))
    }

    /// Whether the servers take this session for somebody, beyond the address that it comes from.
    /// [`ZooKeeperError::Unsupported`] before ZooKeeper 3.7.
    pub(super) async fn is_recognised(&self) -> Result<bool, ZooKeeperError> {
        let client = self.client()?;
        let users = limited(client.list_auth_users()).await?;
        Ok(users.iter().any(|user| user.scheme() != "ip"))
    }

    fn client(&self) -> Result<Client, ZooKeeperError> {
        let client = self.0.client.read().unwrap_or_else(PoisonError::into_inner);
        client.clone().ok_or_else(|| ZooKeeperError::Unknown("the session is closed".to_owned()))
    }

    /// Sends a request now; the answer comes later.
    fn send<T, F>(&self, request: impl FnOnce(&Client) -> F) -> BoxFuture<'static, Result<T, Error>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        match self.0.client.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(client) => Box::pin(limited(request(client))),
            None => Box::pin(std::future::ready(Err(Error::ClientClosed))),
        }
    }

    /// A path of the configuration as the servers know it.
    fn absolute(&self, path: &str) -> String {
        match self.0.chroot.as_str() {
            "" => path.to_owned(),
            chroot if path == "/" => chroot.to_owned(),
            chroot => format!("{chroot}{path}"),
        }
    }

    /// A path of the servers as the configuration knows it; `None` outside the chroot.
    pub(super) fn relative<'a>(&self, path: &'a str) -> Option<&'a str> {
        match path.strip_prefix(self.0.chroot.as_str())? {
            "" => Some("/"),
            rest if rest.starts_with('/') => Some(rest),
            _ => None,
        }
    }
}

async fn limited<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or(Err(Error::Timeout))
}

fn stat_of(stat: &Stat) -> ZnodeStat {
    ZnodeStat {
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        pzxid: stat.pzxid,
        ctime_ms: stat.ctime,
        mtime_ms: stat.mtime,
        version: stat.version,
        cversion: stat.cversion,
        size_bytes: u32::try_from(stat.data_length).unwrap_or(0),
        children: u32::try_from(stat.num_children).unwrap_or(0),
    }
}
