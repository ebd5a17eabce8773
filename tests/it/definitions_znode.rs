//! The znode of the definitions on a real ZooKeeper: what readers find whatever happens to writers, and
//! what a member is told of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::config::{self, Document, Environment, Fault, Faults};
use flowkeeper::definitions::bundle::{self, Rubbish};
use flowkeeper::definitions::desk::{Conflict, Desk, Push, PushError};
use flowkeeper::definitions::follower::{OpeningError, Parts};
use flowkeeper::definitions::reloads::{Look, Proposal, Wanted};
use flowkeeper::definitions::znodes::{self, Found};
use flowkeeper::definitions::{Candidate, Refusal, Set, Source, history};
use flowkeeper::store::model::NewAudit;
use flowkeeper::store::{Leadership, Ledger};
use flowkeeper::zookeeper::{Ensemble, Session, Settings};
use sqlx::{AnyConnection, Connection as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::support::proxy::{Proxy, SET_DATA};
use crate::support::zookeeper::{SESSION_TIMEOUT, ZooKeeperServer};

const PATIENCE: Duration = Duration::from_mins(3);

const ROOT: &str = "/flowkeeper";
const ZNODE: &str = "/flowkeeper/config";

/// One who takes definitions and one who follows them, as a member does.
struct World {
    zookeeper: ZooKeeperServer,
    proxy: Proxy,
    parts: Parts,
    desk: Desk,
    leadership: Leadership,
    over: CancellationToken,
    directory: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let zookeeper = ZooKeeperServer::start().await;
        let proxy = Proxy::start(&zookeeper.connect()).await;
        let directory = tempfile::tempdir().expect("a directory");
        let main = directory.path().join("flowkeeper.toml");
        let text = "[server]\ndefinitions = \"zookeeper\"\n[zookeeper]\nconnect = \"127.0.0.1:1\"\n";
        std::fs::write(&main, text).expect("written");
        let store = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let ledger = Ledger::open(&store, Clock::system()).await.expect("a ledger");
        let leadership = ledger.take_lead("test").await.expect("the lead");
        let over = CancellationToken::new();
        let settings =
            Settings { connect: proxy.connect(), session_timeout: SESSION_TIMEOUT, auth: None, tls: None, sasl: None };
        let source = Arc::new(move || Ok(settings.clone()));
        let parts = Parts {
            ensemble: Ensemble::start(None, source, Clock::system(), over.clone()),
            path: ZNODE.into(),
            main_file: Arc::new(main),
            environment: Arc::new(Environment::default()),
            ledger,
            clock: Clock::system(),
        };
        let (main, _) = config::check(&parts.main_file, &parts.environment).expect("a main file");
        let desk = Desk::new(Some(parts.clone()), Arc::new(main));
        Self { zookeeper, proxy, parts, desk, leadership, over, directory }
    }

    async fn session(&self) -> Session {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(session) = self.parts.ensemble.session() {
                return session;
            }
            assert!(Instant::now() < end, "no session");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn push(&self, push: Push) -> Result<bool, PushError> {
        self.session().await;
        let audit = NewAudit {
            actor: "local".into(),
            source: "127.0.0.1".into(),
            action: "config push",
            target: String::new(),
            detail: None,
            reason: None,
        };
        self.desk.push(&self.leadership, push, audit).await.map(|pushed| pushed.changed)
    }

    /// To the follower, and from it.
    fn follow(&self) -> (mpsc::Sender<Look>, mpsc::Receiver<Proposal>) {
        self.follow_as(false)
    }

    /// The same of a member that has definitions, or has none.
    fn follow_as(&self, has_definitions: bool) -> (mpsc::Sender<Look>, mpsc::Receiver<Proposal>) {
        let (looks, asked) = mpsc::channel(8);
        let (found, proposals) = mpsc::channel(8);
        tokio::spawn(self.parts.clone().follow(has_definitions, asked, found));
        (looks, proposals)
    }

    async fn read(&self) -> Found {
        znodes::read(&self.session().await, ZNODE).await.expect("an answer")
    }

    /// From now on the ledger cannot tell which sets were in force.
    async fn lose_history(&self) {
        sqlx::any::install_default_drivers();
        let file = format!("sqlite://{}", self.directory.path().join("ledger.db").display());
        let mut connection = AnyConnection::connect(&file).await.expect("the ledger");
        sqlx::query("DROP TABLE definitions").execute(&mut connection).await.expect("dropped");
    }

    async fn parts_there(&self) -> Vec<String> {
        let client = self.zookeeper.client().await;
        client.list_children(&format!("{ZNODE}/parts")).await.unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

fn schedule(name: &str) -> String {
    format!(
        "[airflow.main]\nurl = \"http://127.0.0.1:9\"\n[[schedule]]\nname = \"{name}\"\ncron = \"@yearly\"\ndag = \"d\"\n"
    )
}

/// A schedule and so much besides that it needs several znodes.
fn large(name: &str) -> String {
    let filling = format!("# {}\n", "x".repeat(98));
    schedule(name) + &filling.repeat(25_000)
}

fn push(text: String, author: &str) -> Push {
    static PUSHES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = PUSHES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Push {
        documents: vec![Document { name: "d.toml".into(), text }],
        base: None,
        force: true,
        author: author.into(),
        message: None,
        push: number.to_string(),
    }
}

/// The next candidate. It comes at once, but checking a large set takes a program without optimisation
/// seconds on a busy machine.
async fn next(proposals: &mut mpsc::Receiver<Proposal>) -> Candidate {
    let proposal = tokio::time::timeout(PATIENCE, proposals.recv()).await.expect("in time").expect("it follows");
    assert!(proposal.replies.is_empty(), "nobody has asked");
    proposal.candidate.expect("something new")
}

fn names(candidate: &Candidate) -> Vec<String> {
    let set = candidate.as_ref().unwrap_or_else(|refusal| panic!("{refusal:?}"));
    set.config.schedule_names().map(ToString::to_string).collect()
}

/// What is said of a set that is refused.
fn fault(candidate: Candidate) -> String {
    candidate.expect_err("a refusal").faults.faults[0].message.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_tells_of_every_set_and_of_what_is_none() {
    let world = World::start().await;
    world.session().await;
    let (looks, mut candidates) = world.follow();
    // Before the first push there is nothing to tell.
    tokio::time::timeout(Duration::from_millis(300), candidates.recv()).await.expect_err("nothing is there");
    for text in [schedule("a"), large("b"), schedule("c")] {
        assert!(world.push(push(text, "alice")).await.expect("pushed"));
        let candidate = next(&mut candidates).await;
        let provenance = &candidate.as_ref().expect("a set").provenance;
        assert_eq!((provenance.source, provenance.author.as_deref()), (Source::Zookeeper, Some("alice")));
    }
    let client = world.zookeeper.client().await;
    for (data, expected) in [
        (&b"\xff"[..], "something else than text"),
        (b"{}", "no set of definitions"),
        (b"{\"format\": 9}", "newer version"),
        (b"", "is empty"),
        (b"[[schedule]]\nname = \"x\"\n", "no Airflow"),
    ] {
        client.set_data(ZNODE, data, None).await.expect("set");
        let refusal = next(&mut candidates).await.expect_err("a refusal");
        let said: Vec<_> = refusal.faults.faults.iter().map(|fault| fault.message.as_str()).collect();
        assert!(said.iter().any(|said| said.contains(expected)) || expected == "no Airflow", "{said:?}");
    }
    for part in world.parts_there().await {
        client.delete(&format!("{ZNODE}/parts/{part}"), None).await.expect("deleted");
    }
    drop(client.delete(&format!("{ZNODE}/parts"), None).await);
    client.delete(ZNODE, None).await.expect("deleted");
    assert!(fault(next(&mut candidates).await).contains("is gone"));
    // Somebody asks: it is told again, and to them.
    let (reply, _answer) = oneshot::channel();
    looks.send(Look { reply: Some(reply), ..Look::default() }).await.expect("it follows");
    let proposal = tokio::time::timeout(PATIENCE, candidates.recv()).await.expect("in time").expect("it follows");
    assert_eq!(proposal.replies.len(), 1);
    assert!(fault(proposal.candidate.expect("it is told again")).contains("is gone"));
    assert!(world.push(push(schedule("d"), "alice")).await.expect("pushed"));
    assert_eq!(names(&next(&mut candidates).await), ["d"]);
    // Written by hand.
    client.set_data(ZNODE, schedule("e").as_bytes(), None).await.expect("set");
    assert_eq!(names(&next(&mut candidates).await), ["e"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_hears_of_what_was_written_before_and_of_nothing_older() {
    let world = World::start().await;
    let (looks, mut proposals) = world.follow();
    let client = world.zookeeper.client().await;
    let mut newest = Vec::new();
    for round in 0..100 {
        let name = format!("s{round}");
        // A hint may have been on its way before anybody asked.
        let before = Push { force: true, ..push(schedule(&format!("before-{round}")), "alice") };
        assert!(world.push(before).await.expect("pushed"));
        client.set_data(ZNODE, schedule(&name).as_bytes(), None).await.expect("set");
        let (reply, _answer) = oneshot::channel();
        // Where nothing is new, the newest was told already.
        let wanted = if round % 2 == 0 { Wanted::News } else { Wanted::Everything };
        looks.send(Look { reply: Some(reply), wanted }).await.expect("it follows");
        loop {
            let told = tokio::time::timeout(PATIENCE, proposals.recv()).await.expect("in time").expect("it follows");
            assert!(told.candidate.is_some() || wanted == Wanted::News, "everything is wanted");
            newest = told.candidate.as_ref().map_or(newest, names);
            if !told.replies.is_empty() {
                assert_eq!(newest, [name], "what is answered is no older than the question");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_while_it_was_cut_off_is_told_when_it_is_back() {
    let world = World::start().await;
    assert!(world.push(push(schedule("a"), "alice")).await.expect("pushed"));
    let (_looks, mut candidates) = world.follow();
    assert_eq!(names(&next(&mut candidates).await), ["a"]);
    world.proxy.refuse(true);
    world.proxy.cut();
    let client = world.zookeeper.client().await;
    client.set_data(ZNODE, schedule("b").as_bytes(), None).await.expect("set");
    tokio::time::timeout(Duration::from_secs(1), candidates.recv()).await.expect_err("it is cut off");
    world.proxy.refuse(false);
    assert_eq!(names(&next(&mut candidates).await), ["b"]);
    // It was away, and nothing has changed: nothing is told.
    world.proxy.cut();
    tokio::time::timeout(Duration::from_secs(3), candidates.recv()).await.expect_err("nothing is new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_pushes_at_once_one_is_written_whatever_their_size() {
    let world = World::start().await;
    for first in [true, false] {
        let of = |author: &str| {
            let text = if author == "bob" { large(author) } else { schedule(author) };
            Push { force: !first, ..push(text, author) }
        };
        let (one, other, third) = tokio::join!(world.push(of("alice")), world.push(of("bob")), world.push(of("carol")));
        let results = [one, other, third];
        if first {
            let won = results.iter().filter(|result| matches!(result, Ok(true))).count();
            assert_eq!(won, 1, "{results:?}");
            assert!(
                results.iter().all(|result| matches!(result, Ok(true) | Err(PushError::Conflict(_)))),
                "{results:?}"
            );
        } else {
            // By force, too, nobody writes over what they have not seen.
            let lost = |result: &Result<bool, PushError>| match result {
                Ok(_) => true,
                Err(PushError::Conflict(conflict)) => **conflict == Conflict::AtOnce,
                Err(_) => false,
            };
            assert!(results.iter().all(lost) && results.iter().any(Result::is_ok), "{results:?}");
        }
        assert!(matches!(world.read().await, Found::Set(..)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_whose_answer_is_lost_is_told_and_repeated_once() {
    let world = World::start().await;
    assert!(world.push(push(schedule("a"), "alice")).await.expect("pushed"));
    let second = push(schedule("b"), "alice");
    world.proxy.lose_answer_to(SET_DATA);
    let lost = world.push(second.clone()).await;
    assert!(matches!(lost, Err(PushError::Unknown(_))), "{lost:?}");
    let Found::Set(bundle, stat) = world.read().await else { panic!("no set") };
    assert_eq!(bundle.push, Some(second.push.clone()), "it had been written");
    assert!(!world.push(second).await.expect("it is there"));
    assert_eq!(world.read().await.stat().map(|stat| stat.version), Some(stat.version));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_dies_leaves_the_set_before_in_force_and_nothing_for_ever() {
    let world = World::start().await;
    assert!(world.push(push(large("a"), "alice")).await.expect("pushed"));
    let before = world.read().await;
    let listed = world.parts_there().await.len();
    assert!(listed >= 3);
    // It wrote its parts, and no more.
    let documents = vec![Document { name: "d.toml".into(), text: large("b") }];
    let set = bundle::Bundle {
        version: flowkeeper::config::version_of(&documents),
        at: None,
        author: None,
        message: None,
        push: None,
        documents,
    };
    let layout = bundle::lay_out(&set).expect("it fits");
    let client = world.zookeeper.client().await;
    for part in &layout.parts {
        let mode = zookeeper_client::CreateMode::Persistent.with_acls(zookeeper_client::Acls::anyone_all());
        let path = format!("{ZNODE}/parts/{}", part.name);
        drop(client.create(&path, &part.data, &mode).await);
    }
    assert_eq!(world.read().await, before);
    let there = world.parts_there().await.len();
    assert!(there > listed);
    let session = world.session().await;
    let now = world.parts.clock.now().as_millisecond();
    assert_eq!(znodes::clean(&session, ZNODE, now).await, Ok(0), "it may still be at work");
    let tomorrow = now + 25 * 3_600_000;
    let deleted = znodes::clean(&session, ZNODE, tomorrow).await.expect("cleaned");
    assert_eq!(deleted as usize, there - listed);
    assert_eq!(world.read().await, before, "what is listed stays, however old");
    // A part that is lost is noticed, and the set is not taken for whole.
    let part = world.parts_there().await.remove(0);
    client.delete(&format!("{ZNODE}/parts/{part}"), None).await.expect("deleted");
    assert!(matches!(world.read().await, Found::Rubbish(Rubbish::Part(_), _)));
    // Pushing it again heals it.
    assert!(world.push(push(large("a") + "# again\n", "alice")).await.expect("pushed"));
    assert!(matches!(world.read().await, Found::Set(..)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_takes_the_set_there_is_or_the_last_one_that_was() {
    let world = World::start().await;
    let opening = async || world.parts.opening(Ok).await.expect("a set").begun;
    let nothing = opening().await;
    assert_eq!((nothing.config.schedules.len(), nothing.provenance.source), (0, Source::Zookeeper));
    assert!(world.push(push(schedule("a"), "alice")).await.expect("pushed"));
    let set = opening().await;
    assert_eq!((set.config.schedules.len(), set.provenance.source), (1, Source::Zookeeper));
    assert_eq!(history::keep(&world.parts.ledger, &world.leadership, &set).await.expect("kept"), Some(1));
    assert_eq!(history::keep(&world.parts.ledger, &world.leadership, &set).await.expect("known"), None);
    // Rubbish, nothing and nobody: the last one.
    let client = world.zookeeper.client().await;
    client.set_data(ZNODE, b"{}", None).await.expect("set");
    let remembered = async |case: &str| {
        let set = opening().await;
        let provenance = &set.provenance;
        assert_eq!((provenance.source, provenance.author.as_deref()), (Source::Ledger, Some("alice")), "{case}");
        assert_eq!(set.config.schedules.len(), 1, "{case}");
        // What the ledger had is no news to it.
        assert_eq!(history::keep(&world.parts.ledger, &world.leadership, &set).await.expect("known"), None);
    };
    remembered("rubbish").await;
    client.delete(ZNODE, None).await.expect("deleted");
    remembered("nothing").await;
    world.zookeeper.kill();
    world.proxy.cut();
    remembered("nobody").await;
    let away = world.desk.read().await;
    assert!(matches!(away, Err(PushError::Away)), "{away:?}");
}

/// A set that cannot be used here.
fn lacking(set: Set, what: &str) -> Box<Refusal> {
    let faults = vec![Fault::without_place("d.toml", "", what, "")];
    Box::new(Refusal { provenance: set.provenance, faults: Faults { file: "d.toml".into(), faults } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_takes_the_newest_set_that_can_be_used_here() {
    let world = World::start().await;
    for name in ["a", "b", "c", "d"] {
        assert!(world.push(push(schedule(name), "alice")).await.expect("pushed"));
        let set = world.parts.opening(Ok).await.expect("a set").begun;
        // The last one was taken up by nobody.
        if name != "d" {
            history::keep(&world.parts.ledger, &world.leadership, &set).await.expect("kept");
        }
    }
    let usable = async |usable: &[&str]| {
        let equip = |set: Set| {
            let name = set.config.schedule_names().next().map(ToString::to_string).unwrap_or_default();
            if usable.contains(&name.as_str()) || name.is_empty() { Ok(name) } else { Err(lacking(set, &name)) }
        };
        let opening = world.parts.opening(equip).await.expect("a set");
        (opening.begun, opening.refused.map(|refusal| refusal.faults.faults[0].message.clone()))
    };
    let refused = Some("d".to_owned());
    assert_eq!(usable(&["a", "b", "c", "d"]).await, ("d".to_owned(), None));
    assert_eq!(usable(&["a", "b", "c"]).await, ("c".to_owned(), refused.clone()));
    assert_eq!(usable(&["a"]).await, ("a".to_owned(), refused.clone()));
    assert_eq!(usable(&[]).await, (String::new(), refused));
    // Who does not know whether there were definitions begins with none of them, and not with nothing.
    world.lose_history().await;
    let unread = world.parts.opening(|set| Err::<(), _>(lacking(set, "all"))).await;
    assert!(matches!(unread, Err(OpeningError::Store(_))), "{unread:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_takes_the_place_of_definitions_when_the_znode_is_gone_and_the_ledger_silent() {
    let world = World::start().await;
    let asked = async |has_definitions: bool| {
        world.session().await;
        let (looks, mut candidates) = world.follow_as(has_definitions);
        looks.send(Look::default()).await.expect("it follows");
        next(&mut candidates).await
    };
    // Before the first push who asks is told that there is nothing.
    assert_eq!(names(&asked(false).await), Vec::<String>::new());
    // A member that has definitions, of which the ledger knows nothing yet.
    assert!(fault(asked(true).await).contains("is gone"));
    world.lose_history().await;
    assert!(fault(asked(false).await).contains("is gone"), "a ledger that cannot tell");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_set_is_not_written() {
    let world = World::start().await;
    let wrong = world.push(push(schedule("a") + "overlap = \"maybe\"\n", "alice")).await;
    let Err(PushError::Faults(faults)) = wrong else { panic!("{wrong:?}") };
    assert_eq!((faults.faults[0].file.as_str(), faults.faults[0].line), ("d.toml", 7));
    assert_eq!(world.read().await, Found::Nothing { stat: None });
    let root = world.zookeeper.client().await.check_stat(ROOT).await.expect("an answer");
    assert!(root.is_none());
}
