//! The state of `netft top` between two samples. Pure.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::traffic::RouteHistory;
use crate::{
    clock,
    control::schema::{DaemonStatus, DrainResponse, EventView, PeerView, RouteView},
    render::{
        event,
        event::{EventLevel, RouteEndpointMap},
        style::{OutputStyle, TextTone},
        views,
    },
    text::escape,
};

/// Event lines kept.
const MAX_SHOWN_EVENTS: usize = 200;

/// One moment of a node; a line of `netft top --record`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopSample {
    /// Time of the sample, RFC 3339.
    pub at: String,
    /// Milliseconds since the first sample.
    pub elapsed_ms: u64,
    /// Verdict, adapter and counters.
    pub status: DaemonStatus,
    /// Every peer.
    pub peers: Vec<PeerView>,
    /// Every route.
    pub routes: Vec<RouteView>,
    /// Events since the sample before.
    pub events: Vec<EventView>,
}

/// A key with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopKey {
    /// Selects the route above.
    Up,
    /// Selects the route below.
    Down,
    /// Asks for a drain of the selected route.
    Drain,
    /// Asks for the end of its drain.
    Undrain,
    /// Confirms what is asked.
    Confirm,
    /// Ends the view.
    Quit,
    /// No meaning of its own; it cancels what is asked.
    Other,
}

/// The order that a key gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopOrder {
    /// Ends the view.
    Quit,
    /// Starts (`on`) or ends the drain of a route.
    Drain {
        /// The route.
        route: u32,
        /// Starts it.
        on: bool,
    },
}

/// An event as the screen shows it.
#[derive(Clone, Debug)]
pub(super) struct ShownEvent {
    pub(super) text: String,
    pub(super) tone: TextTone,
}

/// The state of the view.
pub struct TopModel {
    pub(super) style: OutputStyle,
    pub(super) sample: Option<TopSample>,
    traffic: BTreeMap<u32, RouteHistory>,
    /// The newest last.
    pub(super) events: VecDeque<ShownEvent>,
    ends: RouteEndpointMap,
    /// Number of the selected route.
    selected: Option<u32>,
    /// The order that waits for its confirmation.
    pending: Option<TopOrder>,
    /// The outcome of the last order.
    pub(super) notice: Option<(String, TextTone)>,
    /// Why there is no newer sample.
    pub(super) problem: Option<String>,
}

impl TopModel {
    /// A view without a sample.
    pub fn new(style: OutputStyle) -> Self {
        Self {
            style,
            sample: None,
            traffic: BTreeMap::new(),
            events: VecDeque::new(),
            ends: RouteEndpointMap::default(),
            selected: None,
            pending: None,
            notice: None,
            problem: None,
        }
    }

    /// Takes the next sample. The routes are shown by peer, in the order of the config.
    pub fn on_sample(&mut self, mut sample: TopSample) {
        self.problem = None;
        let place = |route: &RouteView| {
            let peer = sample.peers.iter().position(|peer| peer.name == route.peer);
            (peer.unwrap_or(usize::MAX), route.id)
        };
        let mut routes = std::mem::take(&mut sample.routes);
        routes.sort_by_key(place);
        self.traffic.retain(|id, _| routes.iter().any(|route| route.id == *id));
        for route in &routes {
            self.ends.insert_route(route.id, route.real_local, route.real_remote);
            self.traffic.entry(route.id).or_default().on_sample(sample.elapsed_ms, route);
        }
        for event in std::mem::take(&mut sample.events) {
            self.push_event(&event);
        }
        if self.selected.is_none_or(|id| routes.iter().all(|route| route.id != id)) {
            self.selected = routes.first().map(|route| route.id);
        }
        sample.routes = routes;
        self.sample = Some(sample);
    }

    /// Takes the reason why a sample is missing; the last one stays on the screen.
    pub fn on_failure(&mut self, reason: &str) {
        self.problem = Some(first_line(reason));
    }

    /// Takes the answer to an order.
    pub fn on_drained(&mut self, answer: Result<DrainResponse, String>) {
        self.notice = Some(match answer {
            Ok(answer) => (first_line(&views::drain_response_text(&answer)), TextTone::Good),
            Err(reason) => (first_line(&reason), TextTone::Bad),
        });
    }

    /// Takes a key; returns what it orders. A drain is carried out after its confirmation only.
    pub fn on_key(&mut self, key: TopKey) -> Option<TopOrder> {
        self.notice = None;
        if let Some(order) = self.pending.take() {
            if key == TopKey::Confirm {
                return Some(order);
            }
            self.notice = Some(("nothing was changed".to_owned(), TextTone::Plain));
            return None;
        }
        match key {
            TopKey::Quit => return Some(TopOrder::Quit),
            TopKey::Up => self.move_selection(|place| place.saturating_sub(1)),
            TopKey::Down => self.move_selection(|place| place + 1),
            TopKey::Drain => self.pending = self.drain_order(true),
            TopKey::Undrain => self.pending = self.drain_order(false),
            TopKey::Confirm | TopKey::Other => {}
        }
        None
    }

    fn drain_order(&self, on: bool) -> Option<TopOrder> {
        self.selected.map(|route| TopOrder::Drain { route, on })
    }

    fn move_selection(&mut self, to: impl Fn(usize) -> usize) {
        let place = self.selected_place().map(to);
        let routes = self.routes();
        self.selected = place.and_then(|at| routes.get(at).or(routes.last())).map(|it| it.id);
    }

    fn push_event(&mut self, event: &EventView) {
        self.ends.learn_from(&event.detail);
        let at = clock::to_zone_time(&event.at, &self.style.zone);
        let at = at.unwrap_or_else(|| escape(&event.at));
        let lines = event::event_lines(&event.detail, &self.ends);
        let tone = match event::event_level(&event.detail) {
            EventLevel::Info => TextTone::Plain,
            EventLevel::Warn => TextTone::Warning,
        };
        let text = format!("{at}  {}", lines.first().map_or("", String::as_str));
        if self.events.len() == MAX_SHOWN_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(ShownEvent { text, tone });
        self.ends.forget_removed(&event.detail);
    }

    pub(super) fn routes(&self) -> &[RouteView] {
        self.sample.as_ref().map_or(&[], |sample| &sample.routes)
    }

    /// Place of the selected route among the shown ones.
    pub(super) fn selected_place(&self) -> Option<usize> {
        self.routes().iter().position(|route| Some(route.id) == self.selected)
    }

    pub(super) fn history_of(&self, route: u32) -> Option<&RouteHistory> {
        self.traffic.get(&route)
    }

    /// The question that waits for its answer.
    pub(super) fn question(&self) -> Option<String> {
        let Some(TopOrder::Drain { route: id, on }) = self.pending else { return None };
        let route = self.routes().iter().find(|route| route.id == id)?;
        let over = route.interface.as_deref().map_or_else(String::new, |name| format!(" ({name})"));
        let name = escape(&format!("route {id} to {}{over}", route.peer));
        Some(match on {
            true => format!("drain {name}: its data moves, in both directions? [y/N]"),
            false => format!("end the drain of {name}? [y/N]"),
        })
    }
}

fn first_line(text: &str) -> String {
    escape(text.trim_start_matches("error: ").lines().next().unwrap_or_default())
}
