//! Chromium without a screen, by way of ChromeDriver (W3C WebDriver), in a network namespace.

use openssl::base64::decode_block;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use test_support::http::request;
use test_support::lab::Namespace;

const DRIVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9515);
/// Browsers are slow where much else is done.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. It ends when dropped.
pub struct Browser<'n> {
    namespace: &'n Namespace,
    driver: Child,
    session: String,
    _profile: tempfile::TempDir,
}

impl<'n> Browser<'n> {
    pub fn start(namespace: &'n Namespace) -> Browser<'n> {
        let profile = tempfile::tempdir().expect("a folder");
        let driver = namespace.run(|| {
            let mut command = Command::new("chromedriver");
            command.arg(format!("--port={}", DRIVER.port())).stdout(Stdio::null());
            let driver =
                command.spawn().expect("start chromedriver: is chromium-driver installed?");
            let end = Instant::now() + PATIENCE;
            while TcpStream::connect(DRIVER).is_err() {
                assert!(Instant::now() < end, "chromedriver does not listen");
                sleep(Duration::from_millis(20));
            }
            driver
        });
        let mut browser = Browser { namespace, driver, session: String::new(), _profile: profile };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1200,1000",
            &profile,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.ask("POST", "", &wanted);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    pub fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({"url": url}));
    }

    /// Runs a script in the page.
    pub fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// The value of an expression in the page.
    pub fn value(&self, expression: &str) -> Value {
        self.run(&format!("return {expression}"))
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn wait(&self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.value(expression) != true {
            let page = || self.value("document.body.innerText");
            assert!(Instant::now() < end, "never: {expression}\n{}", page());
            sleep(Duration::from_millis(50));
        }
    }

    /// Replaces what is in an input, as typing does.
    pub fn type_into(&self, id: &str, text: &str) {
        self.run(&format!(
            "const input = document.getElementById({id:?}); input.value = {text:?}; \
             input.dispatchEvent(new Event('input', {{bubbles: true}}));"
        ));
    }

    /// A picture of the page, in PNG.
    pub fn picture(&self) -> Vec<u8> {
        let picture = self.ask("GET", "/screenshot", &Value::Null);
        decode_block(picture.as_str().expect("a picture")).expect("base64")
    }

    /// What the browser has against the page.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.ask("POST", "/se/log", &json!({"type": "browser"}));
        let lines = log.as_array().expect("a list").iter();
        let severe = lines.filter(|line| line["level"] == "SEVERE");
        let messages = severe.map(|line| line["message"].as_str().unwrap_or_default().to_owned());
        // Every browser asks for an icon.
        messages.filter(|message| !message.contains("favicon")).collect()
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = match &*self.session {
            "" => "/session".to_owned(),
            session => format!("/session/{session}{path}"),
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let json = "Content-Type: application/json\r\n";
        let answer = self.namespace.run(|| request(DRIVER, method, &path, json, &body));
        let status = answer.status;
        let mut answer = answer.json();
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer["value"].take()
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.ask("DELETE", "", &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
