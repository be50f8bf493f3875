//! What `kube-proxy top` shows.

use super::rates::{EndpointRate, Look, Order, Rate, metric};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Sparkline, Table, TableState};

/// Rows for the endpoints of the selected Service port, their header among them.
const ENDPOINTS: u16 = 10;

/// The header of Service ports.
pub const PORTS: [&str; 6] = ["SERVICE", "PORT", "CONN/S", "REFUSED/S", "DROPPED/S", "CONNECTIONS"];

/// All that is shown.
#[derive(Default)]
pub struct Screen {
    pub looks: Option<(Look, Look)>,
    pub rates: Vec<Rate>,
    /// Of the selected Service port; None: they are not counted.
    pub endpoints: Option<Vec<EndpointRate>>,
    pub order: Order,
    pub selected: TableState,
    /// All connections a second, one number a look.
    pub history: Vec<u64>,
    /// Why there is nothing new.
    pub error: Option<String>,
    /// `NO_COLOR` is not set.
    pub colours: bool,
}

impl Screen {
    fn style(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn bad(&self, number: f64) -> Style {
        if number > 0.0 { self.style(Color::Red).bold() } else { Style::new() }
    }

    /// Draws everything.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let below = if self.endpoints.is_some() { ENDPOINTS } else { 0 };
        let [head, chart, table, endpoints, foot] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Length(2),
            Constraint::Min(3),
            Constraint::Length(below),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        let line = Sparkline::default().data(&self.history).style(self.style(Color::Cyan));
        frame.render_widget(line, chart);
        self.draw_ports(frame, table);
        self.draw_endpoints(frame, endpoints);
        let keys = format!("q quit  s sort (by {})  \u{2191}\u{2193} select", self.order.name());
        let foot_line = match &self.error {
            Some(error) => Line::styled(error.clone(), self.bad(1.0)),
            None => Line::styled(keys, Style::new().add_modifier(Modifier::DIM)),
        };
        frame.render_widget(Paragraph::new(foot_line), foot);
    }

    /// Three lines about the node.
    pub fn head(&self) -> Vec<Line<'static>> {
        let Some((before, now)) = &self.looks else { return vec![Line::raw("Waiting\u{2026}")] };
        let of = |name: &str| metric(before, now, name);
        let gauge = |name: &str| now.metrics.get(name).copied().unwrap_or_default();
        let syncs = of("kubeproxy_sync_proxy_rules_duration_seconds_count");
        let took = of("kubeproxy_sync_proxy_rules_duration_seconds_sum");
        let mean = if syncs > 0.0 {
            format!("{:.1} ms each", 1000.0 * took / syncs)
        } else {
            "idle".into()
        };
        let refused = of("kubeproxy_nftables_refused_transactions_total");
        let sum = |of: fn(&Rate) -> f64| self.rates.iter().map(of).sum::<f64>();
        let held = gauge("kubeproxy_quarantined_services");
        let failed = [sum(|rate| rate.refused), sum(|rate| rate.dropped)];
        vec![
            Line::from(vec![
                Span::raw("kube-proxy ").bold(),
                Span::raw(format!(
                    "{}   {} Services, {} endpoints",
                    now.connections.node,
                    gauge("kubeproxy_services"),
                    gauge("kubeproxy_endpoints")
                )),
                Span::styled(
                    if held > 0.0 {
                        format!("   {held} refused by the kernel")
                    } else {
                        String::new()
                    },
                    self.bad(held),
                ),
            ]),
            Line::from(vec![
                Span::raw(format!("Syncs {syncs:.1}/s, {mean}   ")),
                Span::styled(format!("refused transactions {refused:.1}/s"), self.bad(refused)),
            ]),
            match &*now.connections.counting {
                "off" => Line::styled(
                    "Connections are not counted on this node: kube-proxy --count-connections=service",
                    self.bad(1.0),
                ),
                _ => Line::from(vec![
                    Span::raw(format!("Connections {}/s   ", number(sum(|rate| rate.served)))),
                    Span::styled(
                        format!("refused {}/s   ", number(failed[0])),
                        self.bad(failed[0]),
                    ),
                    Span::styled(format!("dropped {}/s", number(failed[1])), self.bad(failed[1])),
                ]),
            },
        ]
    }

    fn draw_ports(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.rates.iter().map(|rate| {
            let cell = |value: f64, style: Style| {
                Cell::from(Line::raw(number(value)).right_aligned()).style(style)
            };
            Row::new([
                Cell::from(format!("{}/{}", rate.namespace, rate.name)),
                Cell::from(rate.port.clone()),
                cell(rate.served, Style::new()),
                cell(rate.refused, self.bad(rate.refused)),
                cell(rate.dropped, self.bad(rate.dropped)),
                Cell::from(Line::raw(rate.total.to_string()).right_aligned()),
            ])
        });
        let widths = [
            Constraint::Fill(1),
            Constraint::Max(20),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(14),
        ];
        let table = Table::new(rows, widths)
            .header(header(&PORTS, 2))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut self.selected);
    }

    fn draw_endpoints(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(endpoints) = &self.endpoints else { return };
        let all: u64 = endpoints.iter().map(|endpoint| endpoint.total).sum();
        let rows = endpoints.iter().map(|endpoint| {
            let share = 100.0 * endpoint.total as f64 / all.max(1) as f64;
            let cell = |text: String| Cell::from(Line::raw(text).right_aligned());
            Row::new([
                Cell::from(endpoint.address.to_string()),
                cell(number(endpoint.served)),
                cell(endpoint.total.to_string()),
                cell(format!("{share:.1} %")),
            ])
        });
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(10),
            Constraint::Length(14),
            Constraint::Length(9),
        ];
        let header = header(&["ENDPOINT", "CONN/S", "CONNECTIONS", "SHARE"], 1);
        frame.render_widget(Table::new(rows, widths).header(header), area);
    }
}

/// A header of which the first columns are words, and the others numbers.
fn header<'a>(names: &[&'a str], words: usize) -> Row<'a> {
    let cell = |(index, name): (usize, &&'a str)| {
        let line = Line::raw(*name).bold();
        Cell::from(if index < words { line } else { line.right_aligned() })
    };
    names.iter().enumerate().map(cell).collect()
}

/// A rate: exact where it is small.
pub fn number(rate: f64) -> String {
    if rate == 0.0 {
        "0".to_owned()
    } else if rate < 100.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Connections;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::collections::HashMap;
    use std::time::{Duration, Instant};

    fn look(counting: &str, seconds: u64, start: Instant) -> Look {
        let (node, counting) = ("worker-1".to_owned(), counting.to_owned());
        let connections = Connections { node, counting, ..Connections::default() };
        let syncs = HashMap::from([
            ("kubeproxy_sync_proxy_rules_duration_seconds_count".to_owned(), 2.0 * seconds as f64),
            ("kubeproxy_sync_proxy_rules_duration_seconds_sum".to_owned(), 0.02 * seconds as f64),
        ]);
        Look { at: start + Duration::from_secs(seconds), connections, metrics: syncs }
    }

    fn shown(screen: &mut Screen, width: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, 24)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn ports_and_endpoints_are_shown() {
        let start = Instant::now();
        let mut screen = Screen {
            looks: Some((look("endpoint", 0, start), look("endpoint", 1, start))),
            rates: vec![Rate {
                namespace: "shop".into(),
                name: "cart".into(),
                port: "http/TCP".into(),
                served: 12.5,
                refused: 3.0,
                dropped: 0.0,
                total: 4321,
            }],
            endpoints: Some(vec![EndpointRate {
                address: "10.244.0.7:8080".parse().unwrap(),
                served: 12.5,
                total: 4000,
            }]),
            ..Screen::default()
        };
        let text = shown(&mut screen, 100);
        for part in [
            "worker-1",
            "Syncs 2.0/s, 10.0 ms each",
            "shop/cart",
            "12.5",
            "3.0",
            "4321",
            "10.244.0.7:8080",
            "100.0 %",
            "refused 3.0/s",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        // A small terminal cuts, and does not fail.
        shown(&mut screen, 10);
    }

    #[test]
    fn it_says_when_nothing_is_counted() {
        let start = Instant::now();
        let mut screen = Screen {
            looks: Some((look("off", 0, start), look("off", 1, start))),
            ..Screen::default()
        };
        assert!(shown(&mut screen, 100).contains("--count-connections=service"));
    }
}
