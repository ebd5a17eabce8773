//! What the fake knows, as plain values that tests edit.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// How long a request takes that overlaps with another where only one is borne. Measured on SQLite.
const STALL: Duration = Duration::from_secs(5);

/// Which Airflow it plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Airflow 2.11.2, API v1.
    Two,
    /// Airflow 3.3.2, API v2.
    Three,
}

/// State of a DAG run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Queued,
    Running,
    Success,
    Failed,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
        }
    }
}

/// A DAG.
#[derive(Debug, Clone, Default)]
pub struct Dag {
    pub is_paused: bool,
    pub has_import_errors: bool,
    pub schedule: Option<String>,
    /// Params as the API shows them: `{"value": …, "schema": {…}}` by name.
    pub params: Map<String, Value>,
}

/// A DAG run.
#[derive(Debug, Clone)]
pub struct Run {
    pub dag_id: String,
    pub dag_run_id: String,
    pub state: State,
    /// The conf, byte for byte.
    pub conf: String,
    pub note: Option<String>,
    pub logical_date: Option<Timestamp>,
    pub data_interval: Option<(Timestamp, Timestamp)>,
    pub kind: &'static str,
    pub queued_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    /// When its request was read, by the monotonic clock.
    pub arrived: Instant,
}

/// A process of Airflow's, as its table of jobs has it.
#[derive(Debug, Clone)]
pub struct Process {
    pub id: i64,
    /// `SchedulerJob`, `TriggererJob`, `DagProcessorJob`.
    pub kind: &'static str,
    pub hostname: String,
    pub state: &'static str,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Its latest heartbeat; `None` while it beats without pause.
    pub stopped_at: Option<Timestamp>,
}

/// Something that goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 500, and nothing was done.
    ErrorBefore,
    /// 500, and it was done.
    ErrorAfter,
    /// The connection is reset, and nothing was done.
    ResetBefore,
    /// The connection is reset, and it was done.
    ResetAfter,
    /// No answer ever, and nothing was done.
    HangBefore,
    /// No answer ever, and it was done.
    HangAfter,
    /// 429 with `Retry-After` in seconds.
    TooMany(u32),
    /// 403, and every token is invalid from now on.
    TokensExpire,
    /// 403 in Airflow's words: the user may not do this.
    Forbidden,
    /// 200 with a web page; nothing was done.
    Html,
    /// This status, with everything that was sent in the answer; nothing was done.
    Echo(u16),
    /// The answer ends in its middle; it was done.
    Truncated,
}

/// Everything that the fake knows.
pub struct World {
    pub version: Version,
    /// A path before every path, as behind a proxy.
    pub base_path: String,
    pub clock: Clock,
    pub dags: BTreeMap<String, Dag>,
    /// File names of import errors.
    pub import_errors: Vec<String>,
    pub username: String,
    pub password: String,
    /// The secret of the client `client`, for whom tokens are issued.
    pub client_secret: String,
    /// What each token ends with that is given out, as its signature.
    pub signature: String,
    /// Tokens that are accepted, those that `/auth/token` gave out among them.
    pub tokens: HashSet<String>,
    /// What `exp` in a new token says.
    pub token_lifetime: Duration,
    /// How long every answer takes.
    pub latency: Duration,
    /// The next requests for DAG runs go wrong like this, in order.
    pub faults: VecDeque<Fault>,
    /// One request in so many goes wrong, in one of these ways.
    pub chaos: Option<(u32, Vec<Fault>)>,
    /// Whether faults hit every request, not only those for DAG runs.
    pub faults_everywhere: bool,
    /// Requests whose path ends with this word (`variables`), or only those of one method
    /// (`PATCH variables`), go wrong like this.
    pub faults_at: BTreeMap<&'static str, Fault>,
    /// The processes that were ever started.
    pub processes: Vec<Process>,
    /// Requests so far, by route.
    pub counts: BTreeMap<&'static str, u64>,
    /// It bears one writing request at a time, as an Airflow on SQLite does: each takes this long and a
    /// millisecond for every 100 bytes, and one that overlaps with another stalls.
    pub bears_one: Option<Duration>,
    /// How many writing requests overlapped with another.
    pub stalls: u64,
    /// How many writing requests are being answered.
    writing: u64,
    /// How many requests were never answered.
    pub hung: u64,
    /// Texts in whose keys or values Airflow refuses entries, by a rule that nobody knew of.
    pub refused_entries: Vec<String>,
    /// Texts in whose keys or values Airflow fails with 500, whatever else is in the request.
    pub failing_entries: Vec<String>,
    /// Variables, pools and connections in the order in which they were made, as they are kept.
    entries: BTreeMap<String, Vec<Map<String, Value>>>,
    runs: Vec<Run>,
    by_id: HashMap<(String, String), usize>,
    by_date: HashMap<(String, Timestamp), usize>,
    random: u64,
}

impl Default for World {
    fn default() -> Self {
        Self::new(Version::Three)
    }
}

impl World {
    /// An Airflow without DAGs; its user is `admin` with password `admin`.
    pub fn new(version: Version) -> Self {
        let mut world = Self {
            version,
            base_path: String::new(),
            clock: Clock::system(),
            dags: BTreeMap::new(),
            import_errors: Vec::new(),
            username: "admin".into(),
            password: "admin".into(),
            client_secret: "secret".into(),
            signature: "c2ln".into(),
            tokens: HashSet::new(),
            token_lifetime: Duration::from_hours(24),
            latency: Duration::ZERO,
            faults: VecDeque::new(),
            chaos: None,
            faults_everywhere: false,
            faults_at: BTreeMap::new(),
            processes: Vec::new(),
            counts: BTreeMap::new(),
            bears_one: None,
            stalls: 0,
            writing: 0,
            hung: 0,
            refused_entries: Vec::new(),
            failing_entries: Vec::new(),
            entries: BTreeMap::new(),
            runs: Vec::new(),
            by_id: HashMap::new(),
            by_date: HashMap::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        };
        world.start("SchedulerJob");
        if version == Version::Three {
            world.start("DagProcessorJob");
        }
        world
    }

    /// Starts a process of this kind, which beats from now on; its number.
    pub fn start(&mut self, kind: &'static str) -> i64 {
        let id = i64::try_from(self.processes.len()).expect("few processes") + 1;
        self.processes.push(Process {
            id,
            kind,
            hostname: format!("host-{id}"),
            state: "running",
            started_at: self.clock.now(),
            ended_at: None,
            stopped_at: None,
        });
        id
    }

    /// A process that was started. Panics when there is none.
    pub fn process(&mut self, id: i64) -> &mut Process {
        self.processes.iter_mut().find(|process| process.id == id).expect("a process of this number")
    }

    /// The same with these DAGs.
    #[must_use]
    pub fn with_dags<const N: usize>(mut self, dags: [&str; N]) -> Self {
        self.dags.extend(dags.map(|dag_id| (dag_id.to_owned(), Dag::default())));
        self
    }

    /// The entries of `variables`, `pools` or `connections`.
    pub fn entries(&self, collection: &str) -> &[Map<String, Value>] {
        self.entries.get(collection).map_or(&[], Vec::as_slice)
    }

    /// The same, to be edited as somebody in Airflow would.
    pub fn entries_mut(&mut self, collection: &str) -> &mut Vec<Map<String, Value>> {
        self.entries.entry(collection.to_owned()).or_default()
    }

    /// The entry whose field `id` is `key`.
    pub fn entry(&self, collection: &str, id: &str, key: &str) -> Option<&Map<String, Value>> {
        self.entries(collection).iter().find(|entry| entry[id] == key)
    }

    /// Whether an entry breaks a rule that nobody knew of: the rule, the field, and what was sent.
    pub(super) fn refusal(&self, entity: &Value, id: &str) -> Option<(&'static str, &'static str, Value)> {
        let text = entity.to_string();
        let is_refused = entity.get(id).is_some() && self.refused_entries.iter().any(|word| text.contains(word));
        is_refused.then(|| ("value_error", "value", entity.clone()))
    }

    /// Whether Airflow fails at a request of this body.
    pub(super) fn fails_at(&self, body: &[u8]) -> bool {
        let text = String::from_utf8_lossy(body);
        self.failing_entries.iter().any(|word| text.contains(word))
    }

    /// Every DAG run, in the order of creation.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// One DAG run.
    pub fn run(&self, dag_id: &str, dag_run_id: &str) -> Option<&Run> {
        self.by_id.get(&(dag_id.to_owned(), dag_run_id.to_owned())).map(|index| &self.runs[*index])
    }

    /// How many requests this route has had.
    pub fn count(&self, route: &str) -> u64 {
        self.counts.get(route).copied().unwrap_or(0)
    }

    /// Makes a DAG run, as somebody else would; the reason when a unique key is taken.
    pub fn create(
        &mut self,
        dag_id: &str,
        dag_run_id: &str,
        logical_date: Option<Timestamp>,
    ) -> Result<&mut Run, &'static str> {
        let now = self.clock.now();
        self.insert(Run {
            dag_id: dag_id.to_owned(),
            dag_run_id: dag_run_id.to_owned(),
            state: State::Queued,
            conf: "{}".into(),
            note: None,
            logical_date,
            data_interval: logical_date.map(|date| (date, date)),
            kind: "manual",
            queued_at: now,
            started_at: None,
            ended_at: None,
            updated_at: now,
            arrived: Instant::now(),
        })
    }

    /// Enters a DAG run; the reason when a unique key is taken.
    pub fn insert(&mut self, run: Run) -> Result<&mut Run, &'static str> {
        let id = (run.dag_id.clone(), run.dag_run_id.clone());
        let date = run.logical_date.map(|date| (run.dag_id.clone(), date));
        if date.as_ref().is_some_and(|date| self.by_date.contains_key(date)) {
            return Err("logical date");
        }
        if self.by_id.contains_key(&id) {
            return Err("id");
        }
        let index = self.runs.len();
        self.by_id.insert(id, index);
        if let Some(date) = date {
            self.by_date.insert(date, index);
        }
        self.runs.push(run);
        Ok(&mut self.runs[index])
    }

    /// Changes a DAG run and notes when. Panics when there is none.
    pub fn change(&mut self, dag_id: &str, dag_run_id: &str, change: impl FnOnce(&mut Run)) {
        let now = self.clock.now();
        let index = self.by_id[&(dag_id.to_owned(), dag_run_id.to_owned())];
        let run = &mut self.runs[index];
        change(run);
        run.updated_at = now;
    }

    /// Moves a DAG run to `state`, with the times that go with it.
    pub fn set_state(&mut self, dag_id: &str, dag_run_id: &str, state: State) {
        let now = self.clock.now();
        self.change(dag_id, dag_run_id, |run| enter(run, state, now));
    }

    /// Deletes a DAG run.
    pub fn delete_run(&mut self, dag_id: &str, dag_run_id: &str) {
        self.runs.retain(|run| run.dag_id != dag_id || run.dag_run_id != dag_run_id);
        self.reindex();
    }

    /// Deletes a DAG with its runs.
    pub fn delete_dag(&mut self, dag_id: &str) {
        self.dags.remove(dag_id);
        self.runs.retain(|run| run.dag_id != dag_id);
        self.reindex();
    }

    /// One step of the scheduler: what is queued runs, what runs succeeds, unless its DAG is paused.
    pub fn advance(&mut self) {
        let now = self.clock.now();
        for run in &mut self.runs {
            if self.dags.get(&run.dag_id).is_some_and(|dag| dag.is_paused) {
                continue;
            }
            let next = match run.state {
                State::Queued => State::Running,
                State::Running => State::Success,
                State::Success | State::Failed => continue,
            };
            enter(run, next, now);
            run.updated_at = now;
        }
    }

    /// A request that may write begins; how long it takes, if that is to be waited for.
    pub(super) fn begin_write(&mut self, bytes: usize) -> Option<Duration> {
        let work = self.bears_one?;
        self.writing += 1;
        if self.writing > 1 {
            self.stalls += 1;
            return Some(STALL);
        }
        Some(work + Duration::from_micros(10 * u64::try_from(bytes).unwrap_or(u64::MAX)))
    }

    /// It ends.
    pub(super) fn end_write(&mut self) {
        self.writing -= 1;
    }

    /// The fault that the next request meets.
    pub(super) fn next_fault(&mut self, method: &str, last: Option<&str>, is_trigger: bool) -> Option<Fault> {
        if let Some(last) = last.filter(|_| !self.faults_at.is_empty()) {
            let of_method = self.faults_at.get(format!("{method} {last}").as_str());
            if let Some(fault) = of_method.or_else(|| self.faults_at.get(last)) {
                return Some(*fault);
            }
        }
        if !is_trigger && !self.faults_everywhere {
            return None;
        }
        if let Some(fault) = self.faults.pop_front() {
            return Some(fault);
        }
        let draw = self.draw();
        let (one_in, kinds) = self.chaos.as_ref()?;
        let hit = draw.is_multiple_of(u64::from(*one_in)) && !kinds.is_empty();
        hit.then(|| kinds[usize::try_from(draw >> 32).unwrap_or(0) % kinds.len()])
    }

    /// xorshift: the same faults in every test run.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn reindex(&mut self) {
        let ids = self.runs.iter().enumerate();
        self.by_id = ids.map(|(index, run)| ((run.dag_id.clone(), run.dag_run_id.clone()), index)).collect();
        let dates = self.runs.iter().enumerate();
        self.by_date =
            dates.filter_map(|(index, run)| Some(((run.dag_id.clone(), run.logical_date?), index))).collect();
    }
}

fn enter(run: &mut Run, state: State, now: Timestamp) {
    run.state = state;
    match state {
        State::Queued => (run.started_at, run.ended_at) = (None, None),
        State::Running => (run.started_at, run.ended_at) = (Some(now), None),
        State::Success | State::Failed => run.ended_at = Some(now),
    }
}
