//! Templates on znodes and nominal times: what they render, and what they refuse.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::domain::calendar::CronExpression;
use crate::domain::schedule::{
    Catchup, CronTrigger, DataInterval, Deadline, LogicalDate, Overlap, PausedDag, RetryPolicy, Schedule, ScheduleName,
    Trigger,
};
use crate::domain::znode::ChangeKind;

fn schedule() -> Schedule {
    let timezone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    Schedule {
        name: ScheduleName::new("nightly-load").unwrap(),
        was: Vec::new(),
        owner: Some("platform".into()),
        airflow: "main".into(),
        dag_id: "nightly_load".into(),
        timezone: timezone.clone(),
        trigger: Trigger::Cron(CronTrigger::new(CronExpression::parse("30 2 * * *").unwrap(), timezone)),
        when: None,
        conf: None,
        logical_date: LogicalDate::Nominal,
        data_interval: DataInterval::Exact,
        catchup: Catchup::Latest,
        catchup_window: None,
        overlap: Overlap::Skip,
        retry: RetryPolicy::default(),
        deadline: Deadline::default(),
        lock: None,
        paused_dag: PausedDag::Hold,
        paused: false,
    }
}

fn facts(data: Option<&[u8]>) -> Arc<ZnodeFacts> {
    Arc::new(ZnodeFacts {
        path: "/data/ready".into(),
        event: Some(ChangeKind::Changed),
        data: data.map(<[u8]>::to_vec),
        version: 3,
        czxid: 0x1_0000_0001,
        mzxid: 0x1_0000_0009,
        recreated: false,
        coalesced: 2,
        truncated: false,
    })
}

/// What a test evaluates on.
struct Case {
    schedule: Schedule,
    znode: Option<Arc<ZnodeFacts>>,
    previous: Option<Arc<ZnodeFacts>>,
    changes: Vec<Arc<ZnodeFacts>>,
}

impl Case {
    fn with(data: &[u8]) -> Self {
        Self { schedule: schedule(), znode: Some(facts(Some(data))), previous: None, changes: Vec::new() }
    }

    fn context(&self) -> RenderContext<'_> {
        RenderContext {
            schedule: &self.schedule,
            dag_run_id: "flowkeeper__nightly-load__2026-07-01T00:30:00Z",
            nominal_time: Some("2026-07-01T00:30:00Z".parse().unwrap()),
            znode: self.znode.as_ref(),
            previous: self.previous.as_ref(),
            ensemble: None,
            changes: &self.changes,
        }
    }

    fn render(&self, template: &str) -> Result<Json, String> {
        let conf = json!({ "x": template });
        let conf = ConfTemplate::parse(conf.as_object().unwrap())
            .map_err(|faults| faults.into_iter().map(|(_, error)| error.message).collect::<Vec<_>>().join("; "))?;
        let rendered = conf.render(&self.context()).map_err(|error| error.to_string())?;
        let json: Json = serde_json::from_str(rendered.get()).unwrap();
        Ok(json["x"].clone())
    }
}

#[test]
fn templates_are_rendered() {
    let case = Case::with(br#"{"n": 5, "list": [1, {"b": true}], "s": "text"}"#);
    let table: &[(&str, Json)] = &[
        // No template: word for word.
        ("plain", json!("plain")),
        ("{ not one }", json!("{ not one }")),
        // Exactly one expression keeps its type.
        ("{{ znode.version }}", json!(3)),
        ("{{ znode.json.list }}", json!([1, {"b": true}])),
        ("{{ znode.json.n * 2 }}", json!(10)),
        ("{{ znode.recreated }}", json!(false)),
        ("{{ previous }}", json!(null)),
        ("{{- znode.version -}}", json!(3)),
        ("{{ \"}}\" }}", json!("}}")),
        // Anything else is text.
        (" {{ znode.version }}", json!(" 3")),
        ("{{ znode.version }}\n", json!("3\n")),
        ("{{ znode.path }}@{{ znode.version }}", json!("/data/ready@3")),
        ("{% if znode.version > 2 %}new{% else %}old{% endif %}", json!("new")),
        ("{# a remark #}x", json!("x")),
        ("<{{ znode.json.s }} & \"{{ znode.name }}\">", json!("<text & \"ready\">")),
        // The variables.
        (
            "{{ schedule.name }} {{ schedule.owner }} {{ schedule.dag }} {{ schedule.timezone }}",
            json!("nightly-load platform nightly_load Europe/Berlin"),
        ),
        ("{{ dag_run_id }}", json!("flowkeeper__nightly-load__2026-07-01T00:30:00Z")),
        (
            "{{ znode.event }} {{ znode.czxid }} {{ znode.coalesced }} {{ znode.size_bytes }}",
            json!("changed 4294967297 2 47"),
        ),
        ("{{ changes | length }}", json!(0)),
        // Times: UTC as text, the schedule's zone for the wall clock.
        ("{{ nominal_time }}", json!("2026-07-01T00:30:00Z")),
        ("at {{ nominal_time }}", json!("at 2026-07-01T00:30:00Z")),
        ("{{ nominal_time | date }}", json!("2026-07-01")),
        ("{{ nominal_time | datetime }}", json!("2026-07-01T02:30:00+02:00")),
        ("{{ nominal_time | strftime('%Y/%m/%d %H:%M') }}", json!("2026/07/01 02:30")),
        ("{{ nominal_time | in_zone('America/New_York') | date }}", json!("2026-06-30")),
        ("{{ nominal_time | epoch }}", json!(1_782_865_800)),
        ("{{ nominal_time.hour }}", json!(2)),
        ("{{ '2026-01-01T00:00:00Z' | date }}", json!("2026-01-01")),
        // Jinja's own.
        ("{{ znode.json.missing | default('none') }}", json!("none")),
        ("{{ znode.path | upper }}", json!("/DATA/READY")),
        ("{{ range(3) | list }}", json!([0, 1, 2])),
        ("{{ znode.path.split('/') | list }}", json!(["", "data", "ready"])),
        ("{{ znode.json.get('s').upper() }}", json!("TEXT")),
        ("{{ znode.json.get('missing') }}", json!(null)),
        ("{{ znode.json.keys() }}", json!(["n", "list", "s"])),
        ("{{ znode.path.strip('/').replace('/', '-') }}", json!("data-ready")),
        ("{{ znode.path.endswith('ready') }}", json!(true)),
    ];
    for (template, expected) in table {
        assert_eq!(case.render(template).as_ref(), Ok(expected), "{template}");
    }
}

#[test]
fn what_cannot_be_rendered_says_why() {
    let case = Case::with(b"\xff\xfe");
    let table = [
        (
            "{{ znode.json.x }}",
            "`{{ znode.json.x }}`: the data of /data/ready is not JSON: expected value at line 1 column 1",
        ),
        ("{{ znode.nothing }}", "`{{ znode.nothing }}` is undefined"),
        ("a {{ znode.nothing }}", "`a {{ znode.nothing }}`: a value is undefined (undefined value)"),
        ("{{ previous.text }}", "`{{ previous.text }}` is undefined"),
        ("{{ 1 / 0 }}", "`{{ 1 / 0 }}`: unable to calculate 1 / 0"),
        (
            "{{ nominal_time | in_zone('Moon') }}",
            "`{{ nominal_time | in_zone('Moon') }}`: there is no time zone named `Moon`",
        ),
        ("{{ 5 | date }}", "`{{ 5 | date }}`: a time is needed here, such as nominal_time, and this is number"),
        ("{{ znode.path", "unexpected end of input, expected end of variable block"),
        ("{{ zonde }}", "`zonde` is not a variable of templates"),
        ("{{ 'a' | nope }}", "there is no filter named `nope`"),
        ("{{ 1 is nope }} {{ 1 is not nope }}", "there is no test named `nope`"),
        ("{{ znode.path.starts_with('/') }}", "there is no method named `starts_with`"),
        ("{{ nope() }}", "`nope` is not a variable of templates"),
    ];
    for (template, expected) in table {
        assert_eq!(case.render(template), Err(expected.to_owned()), "{template}");
    }
}

#[test]
fn a_template_has_a_limit_of_work() {
    let case = Case::with(b"");
    for template in [
        "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}",
        "{{ ('x' * 1000000) * 1000000 }}",
    ] {
        assert!(case.render(template).is_err(), "{template}");
    }
}

#[test]
fn a_conf_keeps_its_order_and_shape() {
    let conf = json!({
        "z": 1, "a": [true, null, { "t": "{{ znode.version }}" }], "nested": { "deep": ["{{ znode.text }}", 1.5] }, "empty": {}
    });
    let case = Case::with("grün\n\"x\"".as_bytes());
    let template = ConfTemplate::parse(conf.as_object().unwrap()).unwrap();
    assert_eq!(
        template.render(&case.context()).unwrap().get(),
        r#"{"z":1,"a":[true,null,{"t":3}],"nested":{"deep":["grün\n\"x\"",1.5]},"empty":{}}"#
    );
}

#[test]
fn all_faults_of_a_conf_are_found() {
    let conf = json!({ "a": "{{ x", "b": ["{{ znode }}", "{{ y }}"], "c": { "d": "{% end %}" } });
    let faults = ConfTemplate::parse(conf.as_object().unwrap()).unwrap_err();
    let paths: Vec<String> = faults.iter().map(|(path, _)| path.join(".")).collect();
    assert_eq!(paths, ["a", "b.1", "c.d"]);
}

#[test]
fn data_that_is_no_text_is_base64() {
    let case = Case::with(b"\xff\xfe");
    assert_eq!(case.render("{{ znode.text }}"), Ok(json!(null)));
    assert_eq!(case.render("{{ znode.base64 }}"), Ok(json!("//4=")));
    let whole = case.render("{{ znode }}").unwrap();
    assert_eq!(whole["text"], json!(null));
    assert_eq!(whole["base64"], json!("//4="));
    assert_eq!(whole.get("json"), None);
}

#[test]
fn a_deleted_znode_has_no_data() {
    let case = Case { znode: Some(facts(None)), ..Case::with(b"") };
    for attribute in ["text", "base64", "json"] {
        assert_eq!(case.render(&format!("{{{{ znode.{attribute} }}}}")), Ok(json!(null)));
    }
}

#[test]
fn conditions_are_evaluated() {
    let mut case = Case::with(b"ready");
    case.previous = Some(facts(Some(b"waiting")));
    let table = [
        ("znode.text == 'ready'", Ok(true)),
        ("znode.text != 'ready'", Ok(false)),
        ("znode.text != previous.text", Ok(true)),
        ("previous is none or previous.text == 'ready'", Ok(false)),
        ("znode.version > 2 and znode.path.startswith('/data')", Ok(true)),
        ("znode.text in ['ready', 'done']", Ok(true)),
        ("znode.json.ok", Err(())),
        ("znode.nothing", Err(())),
    ];
    for (source, expected) in table {
        let result = Expression::parse(source).unwrap().evaluate(&case.context());
        assert_eq!(result.as_ref().map_err(|_| ()).copied(), expected, "{source}: {result:?}");
    }
}

#[test]
fn what_is_read_is_known() {
    let table: &[(&str, &[&str], &[&str])] = &[
        ("znode.text == 'a'", &["znode", "znode.text"], &["znode.json", "previous"]),
        ("znode.json.a.b", &["znode", "znode.json", "znode.json.a"], &["znode.text"]),
        ("znode['json']", &["znode", "znode.json", "znode.text"], &["previous"]),
        ("previous", &["previous", "previous.text"], &["znode"]),
        ("1 == 1", &[], &["znode", "previous"]),
    ];
    for (source, used, unused) in table {
        let expression = Expression::parse(source).unwrap();
        assert!(used.iter().all(|name| expression.uses(name)), "{source} reads {used:?}");
        assert!(!unused.iter().any(|name| expression.uses(name)), "{source} does not read {unused:?}");
    }
    let conf = json!({ "a": ["x {{ previous.text }}"] });
    assert!(ConfTemplate::parse(conf.as_object().unwrap()).unwrap().uses("previous"));
}

#[test]
fn equal_templates_are_compiled_once() {
    let conf = json!({ "a": "{{ znode.text }} and more" });
    let mut compiler = Compiler::default();
    let one = compiler.conf(conf.as_object().unwrap()).unwrap();
    let other = compiler.conf(conf.as_object().unwrap()).unwrap();
    assert!(Arc::ptr_eq(&one.0, &other.0));
    let same = |source| Arc::ptr_eq(&compiler_expression(source), &compiler_expression(source));
    assert!(!same("1 == 1"), "compilers do not share");
    let mut compiler = Compiler::default();
    let (one, other) = (compiler.expression("1 == 1").unwrap(), compiler.expression("1 == 1").unwrap());
    assert!(Arc::ptr_eq(&one.0, &other.0));
}

fn compiler_expression(source: &str) -> Arc<compile::Compiled> {
    Compiler::default().expression(source).unwrap().0
}

#[test]
fn the_default_conf_has_a_known_size() {
    let case = Case::with(&[b'x'; 10_000]);
    let conf: Json = serde_json::from_str(case.context().conf().unwrap().get()).unwrap();
    assert_eq!(conf["znode"]["text"].as_str().unwrap().len(), DEFAULT_CONF_TEXT_BYTES);
    assert_eq!(conf["znode"]["truncated"], true);
    assert_eq!(conf["znode"]["size_bytes"], 10_000);
    assert_eq!(conf["znode"]["base64"], json!(null));

    // A text is not cut inside of a character.
    let case = Case::with("€".repeat(4_000).as_bytes());
    let conf: Json = serde_json::from_str(case.context().conf().unwrap().get()).unwrap();
    assert_eq!(conf["znode"]["text"].as_str().unwrap().chars().count(), DEFAULT_CONF_TEXT_BYTES / 3);

    // Data that is no text, and small data.
    let case = Case::with(b"\xff");
    let conf: Json = serde_json::from_str(case.context().conf().unwrap().get()).unwrap();
    assert_eq!((&conf["znode"]["text"], &conf["znode"]["base64"]), (&json!(null), &json!("/w==")));
    assert_eq!(conf["znode"]["truncated"], false);

    // A batch shares one limit; every change is in it all the same.
    let changes = vec![facts(Some(&[b'x'; 10_000])); 100];
    let case = Case { znode: None, changes, ..Case::with(b"") };
    let text = case.context().conf().unwrap();
    let conf: Json = serde_json::from_str(text.get()).unwrap();
    let held: usize =
        conf["changes"].as_array().unwrap().iter().map(|change| change["text"].as_str().unwrap().len()).sum();
    assert_eq!((conf["changes"].as_array().unwrap().len(), held), (100, DEFAULT_CONF_TOTAL_BYTES));

    // A time.
    let case = Case { znode: None, changes: Vec::new(), ..Case::with(b"") };
    let conf = case.context().conf().unwrap();
    assert_eq!(conf.get(), r#"{"schedule":"nightly-load","nominal_time":"2026-07-01T00:30:00Z"}"#);
}

/// Pieces that templates are made of, so that arbitrary text reaches beyond the first brace.
fn template_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{{ "),
        Just(" }}"),
        Just("{% "),
        Just(" %}"),
        Just("{# "),
        Just(" #}"),
        Just("znode"),
        Just(".text"),
        Just(".json"),
        Just("previous"),
        Just("nominal_time"),
        Just(" | "),
        Just("date"),
        Just("strftime("),
        Just("'%Q%'"),
        Just(")"),
        Just("("),
        Just("["),
        Just("]"),
        Just("for x in "),
        Just("endfor"),
        Just("if "),
        Just("endif"),
        Just(" is "),
        Just("not "),
        Just("range(9)"),
        Just("\""),
        Just("'"),
        Just("\\"),
        Just("1"),
        Just("-"),
        Just("**"),
        Just("~"),
        Just("ü"),
        Just("\u{0}"),
        Just("set x = "),
        Just("macro f()"),
        Just("{"),
        Just("}"),
        Just(":"),
        Just(","),
    ];
    prop_oneof![any::<String>(), proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat()),]
}

proptest! {
    #[test]
    fn no_template_panics_and_every_conf_is_an_object(text in template_text(), data in any::<Vec<u8>>()) {
        let case = Case::with(&data);
        if let Ok(expression) = Expression::parse(&text) {
            let _ = expression.evaluate(&case.context());
        }
        let conf = json!({ "a": text, "b": [text] });
        if let Ok(template) = ConfTemplate::parse(conf.as_object().unwrap())
            && let Ok(json) = template.render(&case.context())
        {
            let json: Json = serde_json::from_str(json.get()).unwrap();
            prop_assert!(json.is_object());
        }
        let json: Json = serde_json::from_str(case.context().conf().unwrap().get()).unwrap();
        prop_assert!(json.is_object());
    }
}
