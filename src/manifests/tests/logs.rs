//! What is logged, and that it is logged once.

use super::*;
use std::io::Write;
use std::sync::{Arc, Mutex};

/// Collects log lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `act` logs, without times and modules.
fn logged(act: impl FnOnce()) -> Vec<String> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| line.trim_start().to_owned()).collect()
}

#[test]
fn a_bad_object_is_logged_once_per_version() {
    let mut files = Files::new();
    let bad = service("bad", "10.96.0.300");
    let expected = [
        r#"WARN manifest{file="x.yaml" document=2}: Service default/bad: spec.clusterIPs[0]: "10.96.0.300" is not an IP address"#,
    ];
    let text = format!("{}---\n{bad}", service("good", "10.96.0.1"));
    assert_eq!(logged(|| drop(files.put("x.yaml", &text))), expected);
    let text = format!("{}---\n{bad}", service("good", "10.96.0.2"));
    assert_eq!(logged(|| drop(files.put("x.yaml", &text))), NONE);
    let commented = format!("{text}# again\n");
    assert_eq!(logged(|| drop(files.put("x.yaml", &commented))), NONE);
    let other = text.replace("300", "301");
    assert_eq!(logged(|| drop(files.put("x.yaml", &other))), [expected[0].replace("300", "301")]);
    let mended = text.replace("300", "3");
    assert_eq!(
        logged(|| drop(files.put("x.yaml", &mended))),
        [
            r#"INFO manifest{file="x.yaml" document=2}: Service default/bad: all values are usable now"#
        ]
    );
}

#[test]
fn what_only_an_api_server_gives_and_slips_of_the_pen_are_logged() {
    let mut files = Files::new();
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n\
                spec: {type: NodePort, clusterIp: 10.96.0.1, ports: [{port: 80}]}\n";
    let begin = r#"WARN manifest{file="x.yaml" document=1}: Service default/a: "#;
    assert_eq!(
        logged(|| drop(files.put("x.yaml", text))),
        [
            "spec.clusterIP: missing; without an API server nobody allocates one, the Service is not served",
            "spec.ports[0].nodePort: missing; without an API server nobody allocates one",
            "spec.clusterIp: unknown field, ignored",
        ]
        .map(|line| format!("{begin}{line}"))
    );
}

#[test]
fn a_bad_file_is_logged_once() {
    let mut files = Files::new();
    let good = service("a", "10.96.0.1");
    assert_eq!(logged(|| drop(files.put("x.yaml", &good))), NONE);
    let bad = format!("{good}---\napiVersion: v1\nkind: Service\nspec: []\n");
    let expected = "ERROR x.yaml: document 2: spec: invalid type: sequence, expected ServiceSpec at line \
                    11 column 7; the rest of it counts, and what nothing is seen of stays";
    assert_eq!(logged(|| drop(files.put("x.yaml", &bad))), [expected]);
    assert_eq!(logged(|| drop(files.put("x.yaml", &bad))), NONE);
    assert_eq!(logged(|| drop(files.put("x.yaml", &format!("{bad}# more\n")))), NONE);
    assert_eq!(logged(|| drop(files.put("x.yaml", &good))), ["INFO x.yaml: usable again"]);
}

#[test]
fn other_kinds_and_contested_objects_are_logged_once() {
    let mut files = Files::new();
    let web = service("web", "10.96.0.1");
    let other = "apiVersion: v1\nkind: ConfigMap\n";
    let text = format!("{web}---\n{other}---\n{other}---\napiVersion: apps/v1\nkind: Deployment\n");
    let expected = ["INFO a.yaml: ignoring 2 ConfigMap, 1 Deployment"];
    assert_eq!(logged(|| drop(files.put("a.yaml", &text))), expected);
    assert_eq!(logged(|| drop(files.put("a.yaml", &format!("{text}# more\n")))), NONE);
    let expected = ["WARN Service default/web is in a.yaml and in b.yaml; the first file counts"];
    assert_eq!(logged(|| drop(files.put("b.yaml", &web))), expected);
    assert_eq!(logged(|| drop(files.put("b.yaml", &service("web", "10.96.0.2")))), NONE);
    let expected = ["WARN c.yaml: Service default/x is there more than once, the first one counts"];
    let x = service("x", "10.96.0.3");
    assert_eq!(logged(|| drop(files.put("c.yaml", &format!("{x}---\n{x}")))), expected);
}
