//! `kube-proxy top`: what happens on this node, in a terminal.
//!
//! * `rates`: what happened between two looks
//! * `screen`: how it is shown

mod rates;
mod screen;

use super::client;
use crate::explain::Connections;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use rates::{Look, Order, Rate};
use screen::{PORTS, Screen, number};
use signal_hook::consts::{SIGHUP, SIGTERM};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Points of the chart of all connections.
const HISTORY: usize = 600;

/// How long it may take to notice that it is to end.
const SIGNALS: Duration = Duration::from_millis(200);

/// Which Services are shown, and how often.
#[derive(Debug)]
pub struct Options {
    pub server: String,
    pub namespace: Option<String>,
    pub interval: Duration,
}

/// Shows what happens until the user has seen enough.
///
/// # Errors
/// There is no terminal, or no proxy answers at the start.
pub fn watch(options: &Options) -> anyhow::Result<()> {
    // Before the terminal changes: an error is shown as any other.
    let first = look(options)?;
    // The terminal has to be given back, whatever ends this.
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGTERM] {
        signal_hook::flag::register(signal, ends.clone())?;
    }
    let mut terminal = ratatui::try_init()?;
    let watched = Watch::new(options, first).run(&mut terminal, &ends);
    ratatui::restore();
    watched
}

/// What happens in one interval.
///
/// # Errors
/// No proxy answers.
pub fn once(options: &Options) -> anyhow::Result<Screen> {
    let before = look(options)?;
    std::thread::sleep(options.interval);
    let now = look(options)?;
    let rates = rates::rates(&before, &now, Order::Rate);
    Ok(Screen { looks: Some((before, now)), rates, ..Screen::default() })
}

/// Writes it for people.
pub fn write(out: &mut impl Write, seen: &Screen, rates: &[Rate]) -> io::Result<()> {
    for line in seen.head() {
        writeln!(out, "{line}")?;
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(PORTS);
    for rate in rates {
        table.add_row([
            format!("{}/{}", rate.namespace, rate.name),
            rate.port.clone(),
            number(rate.served),
            number(rate.refused),
            number(rate.dropped),
            rate.total.to_string(),
        ]);
    }
    for line in table.lines().filter(|_| !rates.is_empty()) {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

struct Watch<'a> {
    options: &'a Options,
    screen: Screen,
    last: Look,
    /// Of the selected Service.
    endpoints: Option<(Instant, Connections)>,
}

impl Watch<'_> {
    fn new(options: &Options, last: Look) -> Watch<'_> {
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let mut screen = Screen { colours, ..Screen::default() };
        screen.selected.select(Some(0));
        Watch { options, screen, last, endpoints: None }
    }

    fn run(
        mut self,
        terminal: &mut ratatui::DefaultTerminal,
        ends: &AtomicBool,
    ) -> anyhow::Result<()> {
        let mut next = Instant::now() + self.options.interval;
        while !ends.load(Ordering::Relaxed) {
            terminal.draw(|frame| self.screen.draw(frame))?;
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.screen.error = self.update().err().map(|error| error.to_string());
                next = Instant::now() + self.options.interval;
            } else if event::poll(left.min(SIGNALS))? && self.is_last(&event::read()?) {
                break;
            }
        }
        Ok(())
    }

    fn update(&mut self) -> anyhow::Result<()> {
        let now = look(self.options)?;
        let before = std::mem::replace(&mut self.last, now.clone());
        self.screen.rates = rates::rates(&before, &now, self.screen.order);
        let all: f64 = self.screen.rates.iter().map(|rate| rate.served).sum();
        self.screen.history.push(all.round() as u64);
        let surplus = self.screen.history.len().saturating_sub(HISTORY);
        self.screen.history.drain(..surplus);
        let by_endpoint = now.connections.counting == "endpoint";
        self.screen.looks = Some((before, now));
        if by_endpoint { self.update_endpoints() } else { Ok(()) }
    }

    fn update_endpoints(&mut self) -> anyhow::Result<()> {
        let selected = self.screen.selected.selected().unwrap_or_default();
        let Some(port) = self.screen.rates.get(selected) else {
            self.screen.endpoints = None;
            return Ok(());
        };
        let name = format!("{}/{}", port.namespace, port.name);
        let path =
            format!("/api/connections?{}", serde_urlencoded::to_string([("services", &name)])?);
        let now = (Instant::now(), ask(&self.options.server, &path)?);
        self.screen.endpoints = Some(rates::endpoint_rates(self.endpoints.as_ref(), &now, port));
        self.endpoints = Some(now);
        Ok(())
    }

    /// Does what a key is for. Whether it was the last one.
    fn is_last(&mut self, event: &Event) -> bool {
        let Event::Key(key) = event else { return false };
        if key.kind == KeyEventKind::Release {
            return false;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Char('s') => self.screen.order = self.screen.order.next(),
            KeyCode::Down | KeyCode::Char('j') => self.screen.selected.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.screen.selected.select_previous(),
            KeyCode::Home => self.screen.selected.select_first(),
            KeyCode::End => self.screen.selected.select_last(),
            _ => {}
        }
        false
    }
}

/// What the proxy says by now.
fn look(options: &Options) -> anyhow::Result<Look> {
    let mut connections = ask(&options.server, "/api/connections")?;
    if let Some(namespace) = &options.namespace {
        connections.ports.retain(|port| port.namespace == *namespace);
    }
    let metrics = rates::samples(&client::get(&options.server, "/metrics")?);
    Ok(Look { at: Instant::now(), connections, metrics })
}

fn ask(server: &str, path: &str) -> anyhow::Result<Connections> {
    let mut answer = serde_json::from_str(&client::get(server, path)?)?;
    client::make_printable(&mut answer);
    Ok(serde_json::from_value(answer)?)
}
