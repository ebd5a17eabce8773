//! The table of wrong files: what is written, and what a person is told about it.

use std::fmt::Write as _;

use super::{AIRFLOW, BOTH, told};

/// A schedule that is right but for what follows.
const CRON: &str = "[[schedule]]\nname = \"a\"\ncron = \"30 2 * * *\"\ndag = \"d\"\n";
const ZNODE: &str = "[[schedule]]\nname = \"a\"\ndag = \"d\"\n";

/// Wrong files of one piece: a title, and the pieces of the text.
const TABLE: &[(&str, &[&str])] = &[
    // The text as such.
    ("an unclosed string", &["[server]\nlisten = \"127.0.0.1:8787\n\n[log]\nformat = \"text\"\n"]),
    ("a value without quotes", &["[log]\nformat = json\n"]),
    ("several faults of syntax", &["[log\nformat = \"text\"\n[server]\nlisten =\n"]),
    ("a key twice", &["[log]\nformat = \"text\"\nformat = \"json\"\n"]),
    ("a section twice", &["[log]\nformat = \"text\"\n[log]\nlevel = \"info\"\n"]),
    ("a file that is no TOML", &["flowkeeper: yes\n"]),
    // Keys.
    ("a key that is nearly right", &["[server]\nlisen = \"127.0.0.1:8787\"\n"]),
    ("a key that is like no other", &["[log]\nrotate_hourly = true\n"]),
    ("a section that is nearly right", &["[sever]\nlisten = \"127.0.0.1:8787\"\n"]),
    ("a key above the sections", &["listen = \"127.0.0.1:8787\"\n"]),
    ("a key of an inline table", &[BOTH, ZNODE, "znode = { path = \"/a\", wach = \"children\" }\n"]),
    ("a section written as a value", &["server = 1\nairflow = \"http://x\"\n"]),
    ("a schedule with one pair of brackets", &[AIRFLOW, "[schedule]\nname = \"a\"\n"]),
    ("an Airflow without a name", &["[airflow]\nurl = \"http://127.0.0.1:8080\"\n"]),
    ("a name of a section that is none", &["[airflow.\"Main Airflow\"]\nurl = \"http://127.0.0.1:8080\"\n"]),
    // Types and units.
    ("a number where text is wanted", &["[server]\nlisten = 8787\n"]),
    ("text where a truth value is wanted", &[AIRFLOW, CRON, "paused = \"yes\"\n"]),
    ("a text where an array is wanted", &["[airflow.main]\nurl = \"http://127.0.0.1:8080\"\nmonitor = \"*\"\n"]),
    ("a table where text is wanted", &["[store]\nurl = { path = \"x\" }\n"]),
    (
        "a duration without a unit",
        &["[store]\nretention = 90\n[zookeeper]\nconnect = \"a\"\nsession_timeout = \"10\"\n"],
    ),
    (
        "durations that are none",
        &[
            AIRFLOW,
            CRON,
            "catchup_window = \"6 hours\"\njitter = \"-5s\"\ndeadline = { start = \"5m1h\", finish = \"99999999d\" }\n",
        ],
    ),
    (
        "durations that are out of range",
        &["[store]\nretention = \"5m\"\n[zookeeper]\nconnect = \"a\"\nsession_timeout = \"2h\"\n"],
    ),
    (
        "words that are nearly right",
        &[AIRFLOW, CRON, "overlap = \"queue-one\"\ncatchup = \"newest\"\nlogical_date = \"Nominal\"\n"],
    ),
    (
        "a number of requests that is none",
        &[
            "[airflow.main]\nurl = \"http://127.0.0.1:8080\"\nin_flight = 0\n[airflow.b]\nurl = \"http://127.0.0.1:8080\"\nin_flight = \"some\"\n",
        ],
    ),
    // The server and the store.
    ("an address that is none", &["[server]\nlisten = \"example.org\"\n"]),
    ("an address without a port", &["[server]\nlisten = \"127.0.0.1\"\n"]),
    ("an address beyond loopback without a token", &["[server]\nlisten = \"0.0.0.0:8787\"\n"]),
    (
        "tokens",
        &[
            "[[server.token]]\nname = \"ci\"\nvalue = \"hunter2\"\n[[server.token]]\nname = \"ops\"\nrole = \"admn\"\n[[server.token]]\nname = \"a b\"\nvalue = { env = \"T\" }\n[[server.token]]\nname = \"a b\"\nvalue = { env = \"T\", file = \"t\" }\n",
        ],
    ),
    ("a PostgreSQL without a database", &["[store]\nurl = \"postgres://me:hunter2@db\"\n"]),
    (
        "parameters of PostgreSQL that are none",
        &["[store]\nurl = \"postgres://me@db/flowkeeper?sslmode=verify_full&connect_timeout=3&password=hunter2\"\n"],
    ),
    ("a password of PostgreSQL that is not encoded", &["[store]\nurl = \"postgres://me:hun#ter2@db/flowkeeper\"\n"]),
    ("several servers of PostgreSQL", &["[store]\nurl = \"postgres://me@db1,db2/flowkeeper\"\n"]),
    (
        "two passwords of PostgreSQL",
        &["[store]\nurl = \"postgres://me:hunter2@db/flowkeeper\"\npassword = { env = \"P\" }\n"],
    ),
    ("a password of a file", &["[store]\nurl = \"sqlite://a.db\"\npassword = { env = \"P\" }\n"]),
    ("a store of another kind", &["[store]\nurl = \"mysql://me:hunter2@db/flowkeeper\"\n"]),
    ("a store in memory", &["[store]\nurl = \"sqlite://:memory:\"\n"]),
    ("a store without a scheme", &["[store]\nurl = \"flowkeeper.db\"\n"]),
    // ZooKeeper and Airflow.
    ("an ensemble without servers", &["[zookeeper]\nroot = \"flowkeeper/\"\n"]),
    (
        "servers that are none",
        &["[zookeeper]\nconnect = \"zk1:2181,zk2:port,http//x\"\n[ensemble.solr]\nconnect = \"zk://host\"\n"],
    ),
    (
        "credentials by halves",
        &[
            "[zookeeper]\nconnect = \"a\"\nauth = { credential = \"me:hunter2\" }\ntls = { cert = \"me.pem\" }\nsasl = { mechanism = \"GSSAPI\", username = \"u\" }\n",
        ],
    ),
    ("an ensemble that is nowhere", &["[ensemble.solr]\ninterval = \"15s\"\n"]),
    (
        "home, reached in two ways",
        &[BOTH, "[ensemble.main]\nsession_timeout = \"10s\"\nthresholds = { outstanding_requests = { wran = 10 } }\n"],
    ),
    (
        "thresholds of checks that have none, and in the wrong order",
        &[
            BOTH,
            "[ensemble.main]\nadmin = \"ftp://{host}\"\ncanary = \"flowkeeper\"\n[ensemble.main.thresholds]\n\
             outstanding_request = { warn = 3 }\nquorum = { warn = 1 }\nlatency = { warn = 900 }\n\
             certificate = { warn = 3 }\nwatches = {}\nclock = { critical = inf }\n",
        ],
    ),
    (
        "a URL that is none",
        &["[airflow.main]\nurl = \"127.0.0.1:8080\"\n[airflow.b]\nurl = \"ftp://127.0.0.1\"\n[airflow.c]\nauth = {}\n"],
    ),
    ("a URL with a password", &["[airflow.main]\nurl = \"http://admin:hunter2@127.0.0.1:8080\"\n"]),
    (
        "two ways to authenticate",
        &[
            "[airflow.main]\nurl = \"http://127.0.0.1:8080\"\nauth = { username = \"admin\", token = { env = \"T\" } }\n",
        ],
    ),
    (
        "ways to authenticate by halves",
        &[
            "[airflow.main]\nurl = \"http://127.0.0.1:8080\"\nauth = { username = \"admin\", ttl = \"5m\" }\n[airflow.b]\nurl = \"http://127.0.0.1:8080\"\nauth = { oauth2 = { token_url = \"x\" } }\n[airflow.c]\nurl = \"http://127.0.0.1:8080\"\nauth = { command = [] }\n",
        ],
    ),
    (
        "a password in the file",
        &[
            "[airflow.main]\nurl = \"http://127.0.0.1:8080\"\nauth = { username = \"admin\", password = \"hunter2\" }\nheaders = { \"X Y\" = \"hunter2\" }\n",
        ],
    ),
    (
        "a password under a wrong key",
        &["[airflow.main]\nurl = \"http://127.0.0.1:8080\"\nauth = { username = \"admin\", passwrd = \"hunter2\" }\n"],
    ),
    // Schedules.
    ("an empty schedule", &[AIRFLOW, "[[schedule]]\n"]),
    (
        "names that are none",
        &[AIRFLOW, "[[schedule]]\nname = \"Nightly_Load\"\ncron = \"@daily\"\ndag = \"a b\"\nwas = \"-x\"\n"],
    ),
    ("a name twice", &[AIRFLOW, CRON, CRON]),
    (
        "a former name that is taken",
        &[AIRFLOW, CRON, "[[schedule]]\nname = \"b\"\ncron = \"@daily\"\ndag = \"d\"\nwas = \"a\"\n"],
    ),
    (
        "former names: none, too many, one that is taken, one twice, one that is none",
        &[
            AIRFLOW,
            CRON,
            "[[schedule]]\nname = \"b\"\ncron = \"@daily\"\ndag = \"d\"\nwas = []\n",
            "[[schedule]]\nname = \"c\"\ncron = \"@daily\"\ndag = \"d\"\nwas = [\"n1\", \"n2\", \"n3\", \"n4\", \"n5\", \"n6\", \"n7\", \"n8\", \"n9\"]\n",
            "[[schedule]]\nname = \"e\"\ncron = \"@daily\"\ndag = \"d\"\nwas = [\"x\", \"a\"]\n",
            "[[schedule]]\nname = \"f\"\ncron = \"@daily\"\ndag = \"d\"\nwas = [\"x\", \"-y\"]\n",
        ],
    ),
    (
        "no trigger, and two",
        &[BOTH, ZNODE, "[[schedule]]\nname = \"b\"\ndag = \"d\"\ncron = \"@daily\"\nznode = { path = \"/a\" }\n"],
    ),
    ("no Airflow", &[CRON]),
    (
        "an Airflow that is not there",
        &[AIRFLOW, "[airflow.reports]\nurl = \"http://127.0.0.1:8081\"\n", CRON, "airflow = \"report\"\n"],
    ),
    ("several Airflows, and none is named", &[AIRFLOW, "[airflow.reports]\nurl = \"http://127.0.0.1:8081\"\n", CRON]),
    (
        "cron expressions that are none",
        &[
            AIRFLOW,
            "[[schedule]]\nname = \"a\"\ncron = \"61 2 * * *\"\ndag = \"d\"\n[[schedule]]\nname = \"b\"\ncron = \"30 2 *\"\ndag = \"d\"\n[[schedule]]\nname = \"c\"\ncron = \"@dayly\"\ndag = \"d\"\n",
        ],
    ),
    (
        "a cron expression that never comes due",
        &[AIRFLOW, "[[schedule]]\nname = \"a\"\ncron = \"0 0 30 2 *\"\ndag = \"d\"\n"],
    ),
    ("zones that are none", &[AIRFLOW, "[defaults]\ntimezone = \"Berlin\"\n", CRON, "timezone = \"Europe/Berln\"\n"]),
    (
        "keys of the other trigger",
        &[
            BOTH,
            CRON,
            "initial = \"fire\"\nwhen = \"znode.text == 'a'\"\n[[schedule]]\nname = \"b\"\ndag = \"d\"\nznode = { path = \"/a\" }\njitter = \"5s\"\nlogical_date = \"nominal\"\ndata_interval = \"previous\"\n",
        ],
    ),
    (
        "an interval that only the DAG knows",
        &[AIRFLOW, CRON, "logical_date = \"interval_start\"\ndata_interval = \"dag\"\n"],
    ),
    (
        "pauses and deadlines the wrong way round",
        &[
            AIRFLOW,
            CRON,
            "retry = { initial = \"5m\", max = \"1m\" }\ndeadline = { start = \"2h\", finish = \"5m\" }\n",
        ],
    ),
    // Znodes.
    (
        "paths that are none",
        &[
            BOTH,
            ZNODE,
            "znode = { path = \"data/ready\" }\n[[schedule]]\nname = \"b\"\ndag = \"d\"\nznode = { path = \"/data/\" }\n[[schedule]]\nname = \"c\"\ndag = \"d\"\nznode = { path = \"/data/../x\" }\n[[schedule]]\nname = \"e\"\ndag = \"d\"\nznode = { watch = \"node\" }\n",
        ],
    ),
    ("no home ensemble", &[AIRFLOW, ZNODE, "znode = { path = \"/a\" }\n"]),
    (
        "an ensemble that is not there",
        &[BOTH, "[ensemble.solr]\nconnect = \"zk1\"\n", ZNODE, "znode = { path = \"/a\", ensemble = \"sollr\" }\n"],
    ),
    (
        "kinds of change",
        &[
            BOTH,
            ZNODE,
            "znode = { path = \"/a\", on = [] }\n[[schedule]]\nname = \"b\"\ndag = \"d\"\nznode = { path = \"/a\", on = [\"create\", \"changed\"] }\n[[schedule]]\nname = \"c\"\ndag = \"d\"\nznode = { path = \"/a\", watch = \"children\", on = [\"changed\"] }\n",
        ],
    ),
    (
        "globs",
        &[
            BOTH,
            ZNODE,
            "znode = { path = \"/a\", watch = \"subtree\", include = [\"*.json\", \"[a\"] }\n[[schedule]]\nname = \"b\"\ndag = \"d\"\nznode = { path = \"/a\", include = [\"*.json\"] }\n",
        ],
    ),
    (
        "batches",
        &[
            BOTH,
            ZNODE,
            "znode = { path = \"/a\", settle_max = \"1m\", batch = 10 }\n[[schedule]]\nname = \"b\"\ndag = \"d\"\nznode = { path = \"/a\", settle = \"1m\", settle_max = \"5s\", batch = 0 }\n",
        ],
    ),
    ("consuming what is not a child", &[BOTH, ZNODE, "znode = { path = \"/a\", consume = \"accepted\" }\n"]),
    (
        "consuming, and what it excludes",
        &[
            BOTH,
            ZNODE,
            "znode = { path = \"/a\", watch = \"children\", consume = \"success\", on = [\"created\", \"deleted\"], settle = \"1s\" }\noverlap = \"skip\"\ninitial = \"ignore\"\n",
        ],
    ),
    (
        "where to begin",
        &[
            BOTH,
            ZNODE,
            "znode = { path = \"/a\" }\ninitial = { after_zxid = \"12\" }\n[[schedule]]\nname = \"b\"\ndag = \"d\"\nznode = { path = \"/a\" }\ninitial = { after = \"yesterday\" }\n[[schedule]]\nname = \"c\"\ndag = \"d\"\nznode = { path = \"/a\" }\ninitial = \"now\"\n",
        ],
    ),
    ("flowkeeper's own znodes", &[BOTH, ZNODE, "znode = { path = \"/flowkeeper\", watch = \"subtree\" }\n"]),
    // Templates.
    (
        "templates that cannot be read",
        &[
            BOTH,
            ZNODE,
            "znode = { path = \"/a\" }\nwhen = \"znode.text ==\"\nconf = { a = \"{{ znode.text\", deep = { list = [\"{{ zonde.path }}\"] }, b = \"{{ znode.text | uper }}\", c = \"{% if znode %}x\" }\n",
        ],
    ),
    (
        "variables that are never there",
        &[
            BOTH,
            CRON,
            "conf = { a = \"{{ znode.path }}\" }\n[[schedule]]\nname = \"b\"\ndag = \"d\"\nznode = { path = \"/a\" }\nconf = { a = \"{{ nominal_time }}\" }\n[[schedule]]\nname = \"c\"\ndag = \"d\"\nznode = { path = \"/a\", settle = \"1s\" }\nconf = { a = \"{{ znode.path }}\" }\n",
        ],
    ),
    ("a condition in braces", &[BOTH, ZNODE, "znode = { path = \"/a\" }\nwhen = \"{{ znode.text == 'ready' }}\"\n"]),
    (
        "a conf that is no table, and numbers without a JSON form",
        &[
            AIRFLOW,
            CRON,
            "conf = \"x\"\n[[schedule]]\nname = \"b\"\ncron = \"@daily\"\ndag = \"d\"\nconf = { a = inf, b = 99999999999999999999 }\n",
        ],
    ),
    // Locks.
    ("a lock without a home ensemble", &[AIRFLOW, CRON, "lock = \"warehouse\"\n"]),
    ("a lock of the defaults without a home ensemble", &[AIRFLOW, "[defaults]\nlock = \"warehouse\"\n", CRON]),
    ("names that are none for a lock", &[BOTH, "[defaults]\nlock = \"Ware/house\"\n", CRON, "lock = \"\"\n"]),
    ("a lock and a DAG run that waits in Airflow", &[BOTH, CRON, "lock = \"warehouse\"\npaused_dag = \"submit\"\n"]),
    // Teams.
    (
        "a schedule beyond the limits of its team",
        &[
            BOTH,
            "[team.payments]\ndags = [\"payments_*\", \"load\"]\nznodes = [\"/payments/*\", \"/flags/pay\"]\n[team.search]\n",
            "[defaults]\nowner = \"payments\"\n[[schedule]]\nname = \"a\"\ncron = \"@daily\"\ndag = \"search_load\"\nlock = \"warehouse\"\n",
            "[[schedule]]\nname = \"b\"\ndag = \"load\"\nznode = { path = \"/payments/inbox\", watch = \"children\" }\n",
            "[[schedule]]\nname = \"c\"\ndag = \"load\"\nznode = { path = \"/payments\", watch = \"subtree\" }\n",
            "[[schedule]]\nname = \"d\"\ndag = \"load\"\nznode = { path = \"/flags/search\" }\n",
            "[[schedule]]\nname = \"e\"\nowner = \"search\"\ndag = \"load\"\nznode = { path = \"/flags/pay\" }\n",
            "[[schedule]]\nname = \"f\"\nowner = \"serach\"\ndag = \"load\"\ncron = \"@daily\"\n",
            "[[schedule]]\nname = \"g\"\nowner = \"platform\"\ndag = \"anything\"\ncron = \"@daily\"\n",
        ],
    ),
    (
        "globs that are none, and keys of a team that are none",
        &[
            "[team.payments]\ndags = [\"a[\"]\nznodes = [\"payments/**\", \"/a{\"]\nlock = [\"x\"]\nnotify = [\"oncall\"]\n[team.\"Big Team\"]\n[team]\nx = 1\n",
        ],
    ),
    (
        "tokens of teams",
        &[
            "[[server.token]]\nname = \"a\"\nvalue = { env = \"A\" }\nrole = \"admin\"\nteam = \"payments\"\n",
            "[[server.token]]\nname = \"b\"\nvalue = { env = \"B\" }\nteam = \"payments\"\n",
            "[[server.token]]\nname = \"c\"\nvalue = { env = \"C\" }\nrole = \"operate\"\nteam = \"payment\"\n",
            "[[server.token]]\nname = \"d\"\nvalue = { env = \"D\" }\nrole = \"operate\"\nteam = \"Big Team\"\n",
            "[team.payments]\n",
        ],
    ),
    // Ensembles.
    ("an ensemble trigger without a home ensemble", &[AIRFLOW, ZNODE, "ensemble = { on = [\"degraded\"] }\n"]),
    (
        "ensembles that are not there",
        &[
            BOTH,
            "[ensemble.solr]\nconnect = \"zk1:2181\"\n",
            ZNODE,
            "ensemble = { name = \"sollr\", on = [\"degraded\"] }\n[[schedule]]\nname = \"b\"\ndag = \"d\"\n\
             ensemble = { name = \"main\", on = [\"recovered\"] }\n",
        ],
    ),
    (
        "events that are none",
        &[
            BOTH,
            ZNODE,
            "ensemble = { on = [\"quorum-lost\", \"recovered\"] }\n[[schedule]]\nname = \"b\"\ndag = \"d\"\n\
             ensemble = { on = [] }\n[[schedule]]\nname = \"c\"\ndag = \"d\"\nensemble = {}\n",
        ],
    ),
    (
        "what goes with other triggers",
        &[
            BOTH,
            ZNODE,
            "ensemble = { on = [\"degraded\"] }\ncatchup = \"all\"\ncatchup_window = \"1h\"\ninitial = \"fire\"\n\
             jitter = \"1s\"\nlogical_date = \"nominal\"\nwhen = \"znode.text\"\nconf = { t = \"{{ nominal_time }}\" }\n",
        ],
    ),
    ("two triggers", &[BOTH, CRON, "ensemble = { on = [\"degraded\"] }\n"]),
    // What comes later.
    ("features of later versions", &[BOTH, "[[expect]]\nname = \"x\"\n[[notify]]\nname = \"y\"\n", CRON]),
];

#[test]
fn every_wrong_file_is_told_well() {
    let mut text = String::new();
    for (title, pieces) in TABLE {
        let content = pieces.concat();
        let told = told(&[("flowkeeper.toml", content.as_bytes())], &[]);
        assert!(!told.contains("hunter2"), "{title}: a secret is shown\n{told}");
        assert!(!told.trim().is_empty(), "{title}: nothing is said");
        writeln!(text, "──── {title}\n{told}").unwrap();
    }
    insta::assert_snapshot!("wrong_files", text);
}

#[test]
fn every_wrong_set_of_files_is_told_well() {
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    let includes =
        b"include = [\"schedules/*.toml\", \"more.toml\"]\n[airflow.main]\nurl = \"http://127.0.0.1:8080\"\n";
    let table: &[(&str, Files<'_>)] = &[
        ("no UTF-8", &[("flowkeeper.toml", b"[log]\nformat = \"t\xffxt\"\n")]),
        ("UTF-16", &[("flowkeeper.toml", b"\xff\xfe[\0l\0o\0g\0]\0")]),
        ("a file that is not there", &[("flowkeeper.toml", b"include = [\"more.toml\"]\n")]),
        ("a glob that matches nothing", &[("flowkeeper.toml", b"include = [\"schedules/*.toml\", \"[x\", 5]\n")]),
        (
            "a name in two files",
            &[("flowkeeper.toml", includes), ("schedules/a.toml", CRON.as_bytes()), ("more.toml", CRON.as_bytes())],
        ),
        (
            "sections in the wrong file, and an Airflow twice",
            &[
                ("flowkeeper.toml", includes),
                ("more.toml", b"[server]\nlisten = \"127.0.0.1:1\"\n[airflow.main]\nurl = \"http://127.0.0.1:8081\"\n"),
                ("schedules/a.toml", b"[log]\nformat = \"json\"\n"),
            ],
        ),
        (
            "files that include each other",
            &[
                ("flowkeeper.toml", b"include = [\"a.toml\"]\n"),
                ("a.toml", b"include = [\"b.toml\"]\n"),
                ("b.toml", b"include = [\"a.toml\", \"b.toml\", \"flowkeeper.toml\"]\n"),
            ],
        ),
        (
            "faults in several files, in their order",
            &[
                ("flowkeeper.toml", b"include = [\"a.toml\", \"b.toml\"]\n[log]\nformat = \"xml\"\n"),
                ("a.toml", b"[[schedule]]\nname = \"a\"\ncron = \"@daily\"\ndag = 1\n"),
                ("b.toml", b"[[schedule]\n"),
            ],
        ),
    ];
    let mut text = String::new();
    for (title, files) in table {
        writeln!(text, "──── {title}\n{}", told(files, &[])).unwrap();
    }
    insta::assert_snapshot!("wrong_sets_of_files", text);
}

#[test]
fn a_wrong_variable_is_named() {
    let files: &[(&str, &[u8])] = &[("flowkeeper.toml", AIRFLOW.as_bytes())];
    let text = told(
        files,
        &[
            ("FLOWKEEPER_SERVER__LISEN", "127.0.0.1:1"),
            ("FLOWKEEPER_STORE__RETENTION", "90"),
            ("FLOWKEEPER_LOG__FORMAT", "xml"),
            ("FLOWKEEPER_SEVER__LISTEN", "127.0.0.1:1"),
            ("FLOWKEEPER_AIRFLOW__MAIN__AUTH__PASSWORD", "hunter2"),
            ("FLOWKEEPER_AIRFLOW__MAIN__URL__PORT", "8080"),
            ("FLOWKEEPER_LOG__", "x"),
        ],
    );
    insta::assert_snapshot!("wrong_variables", text);
}
