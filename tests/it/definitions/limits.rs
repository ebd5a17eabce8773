//! What a set may have a member do: the main file of each member says it, whoever pushes and however.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_set_runs_and_reads_nothing_that_the_main_file_does_not_allow() {
    let cluster = Cluster::start(1).await;
    let good = cluster.write("d.toml", &yearly("a"));
    cluster.first().json(&["config", "push", &good]).await;
    cluster.agree(&["a"]).await;
    assert!(cluster.first().logged().contains("can write the definitions"), "who can write is told at the start");

    let marker = cluster.directory.path().join("was-here");
    let command = format!("[\"touch\", \"{}\"]", marker.display());
    let running = format!("{}auth = {{ command = {command} }}\n{}", cluster.airflow_section(), yearly("b"));
    let file = cluster.directory.path().join("running.toml");
    std::fs::write(&file, &running).expect("written");
    let file = file.display().to_string();

    // By the command, with its own main file.
    let refused = cluster.first().run(&["config", "push", &file]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("running.toml:3:") && said(&refused).contains("hint: "), "{}", said(&refused));
    let compared = cluster.first().run(&["config", "diff", &file]).await;
    assert!(said(&compared).contains("`config push` refuses it"), "{}", said(&compared));
    // By the member.
    let body = json!({ "documents": [{ "name": "x.toml", "text": running }], "force": true });
    let (status, problem) = put(cluster.first(), &body).await;
    assert_eq!((status, &problem["faults"][0]["key"]), (422, &json!("airflow.main.auth.command")), "{problem}");
    // Past both: a command, the password of the member's ledger or token, its files.
    for auth in [
        format!("{{ command = {command} }}"),
        "{ token = { env = \"FLOWKEEPER_TOKEN\" } }".to_owned(),
        "{ token = { file = \"/etc/passwd\" } }".to_owned(),
        "{ token = { file = \"flowkeeper.toml\" } }".to_owned(),
    ] {
        let text = format!("{}auth = {auth}\n{}", cluster.airflow_section(), yearly("b"));
        let logged = cluster.first().logged().len();
        cluster.set_znode(text.as_bytes()).await;
        let end = Instant::now() + PATIENCE;
        while !cluster.first().logged()[logged..].contains("the newest definitions are refused") {
            assert!(Instant::now() < end, "{auth} is not refused\n{}", cluster.first().logged());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    cluster.agree(&["a"]).await;
    assert!(!marker.exists(), "the program was run");

    // What the main file allows is done, and the member need not be restarted for it.
    let main = cluster.first().path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&main).expect("the configuration");
    let allowing = text.replacen("[server]\n", &format!("[server]\npushed = {{ commands = [{command}] }}\n"), 1);
    std::fs::write(&main, allowing).expect("written");
    cluster.first().json(&["config", "push", &file, "--force"]).await;
    cluster.agree(&["b"]).await;
    let end = Instant::now() + PATIENCE;
    while !marker.exists() {
        assert!(Instant::now() < end, "the program was not run\n{}", cluster.first().logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
