//! Copies of frames, and the frames of every path that are acknowledged, whichever copy arrived.
//!
//! An acknowledgement does not tell which copy of a frame arrived (Karn). The peer's count of what
//! arrived on a route does: a frame that was sent there, is acknowledged, and is missing in that
//! count was lost there, and its copy on another route arrived.

use crate::ids::RouteId;

/// Copies of a batch that are remembered. A further one is not counted, which only shows less loss.
const MAX_COPIES: usize = 2;

/// The routes that carried a batch besides its present path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CopyRoutes([Option<RouteId>; MAX_COPIES]);

impl CopyRoutes {
    pub(crate) fn new(route: Option<RouteId>) -> Self {
        Self([route, None])
    }

    pub(crate) fn add(&mut self, route: RouteId) {
        if let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(route);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = RouteId> + '_ {
        self.0.iter().flatten().copied()
    }
}
