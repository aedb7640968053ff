//! The running process that hands its adapter over.

use std::time::Duration;

use crate::{
    handover::message::{HANDOVER_VERSION, SuccessorMessage},
    time::Time,
};

/// Longest time from taking the adapter to serving it.
const SERVING_TIMEOUT: Duration = Duration::from_secs(5);

/// An input of the predecessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PredecessorInput {
    /// A message arrived.
    Message(SuccessorMessage),
    /// A packet arrived that is no message.
    Unknown,
    /// This process reads no queue any more; the device is kept.
    Frozen,
    /// The successor ended.
    SuccessorGone,
    /// Time passed.
    Timer,
}

/// An action of the predecessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PredecessorAction {
    /// Stop serving, and keep the device; answered with [`PredecessorInput::Frozen`].
    Freeze,
    /// Send [`Take`](super::PredecessorMessage::Take) with the descriptors.
    SendTake,
    /// Kill the successor; answered with [`PredecessorInput::SuccessorGone`].
    StopSuccessor,
    /// Serve on: nothing has changed, or the adapter is to be opened again if it was frozen.
    Serve {
        /// Why the hand-over failed.
        reason: String,
        /// The adapter was frozen.
        was_frozen: bool,
    },
    /// End: the successor serves.
    Exit,
}

/// Stage of the hand-over.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PredecessorStage {
    /// This process serves, and waits until the successor is ready.
    Preparing { until: Time },
    /// The successor is ready, and the workers are stopping. With a reason the hand-over has
    /// failed.
    Freezing { failed: Option<String> },
    /// The successor has the descriptors.
    HandedOver { until: Time },
    /// The successor is being killed.
    Stopping { reason: String, was_frozen: bool },
    /// The hand-over is over; exactly one process serves.
    Finished,
}

/// The predecessor's side of one hand-over.
#[derive(Clone, Debug)]
pub struct Predecessor {
    stage: PredecessorStage,
}

impl Predecessor {
    /// A successor was started, which has `ready_timeout` to be ready.
    pub fn new(now: Time, ready_timeout: Duration) -> Self {
        Self { stage: PredecessorStage::Preparing { until: now + ready_timeout } }
    }

    /// When [`PredecessorInput::Timer`] has something to do.
    pub fn next_wake(&self) -> Option<Time> {
        match self.stage {
            PredecessorStage::Preparing { until } | PredecessorStage::HandedOver { until } => {
                Some(until)
            }
            PredecessorStage::Freezing { .. }
            | PredecessorStage::Stopping { .. }
            | PredecessorStage::Finished => None,
        }
    }

    /// Takes in an input. Returns what is to be done.
    pub fn on_input(&mut self, now: Time, input: PredecessorInput) -> Option<PredecessorAction> {
        use PredecessorInput as In;
        let stage = std::mem::replace(&mut self.stage, PredecessorStage::Finished);
        let (stage, action) = match (stage, input) {
            (PredecessorStage::Finished, _) => (PredecessorStage::Finished, None),
            (
                PredecessorStage::Preparing { .. },
                In::Message(SuccessorMessage::Ready { version }),
            ) if version == HANDOVER_VERSION => {
                (PredecessorStage::Freezing { failed: None }, Some(PredecessorAction::Freeze))
            }
            (PredecessorStage::Preparing { until }, input) => match failure(&input, now >= until) {
                None => (PredecessorStage::Preparing { until }, None),
                Some(reason) => give_up(reason, &input, false),
            },
            (PredecessorStage::Freezing { failed }, In::Frozen) => match failed {
                None => {
                    let until = now + SERVING_TIMEOUT;
                    (PredecessorStage::HandedOver { until }, Some(PredecessorAction::SendTake))
                }
                Some(reason) => {
                    let serve = PredecessorAction::Serve { reason, was_frozen: true };
                    (PredecessorStage::Finished, Some(serve))
                }
            },
            // Nothing can be undone before the workers have stopped.
            (PredecessorStage::Freezing { failed }, In::SuccessorGone) => {
                let reason = failed.unwrap_or_else(|| "the successor ended".to_owned());
                (PredecessorStage::Freezing { failed: Some(reason) }, None)
            }
            (PredecessorStage::Freezing { failed }, _) => {
                (PredecessorStage::Freezing { failed }, None)
            }
            (PredecessorStage::HandedOver { .. }, In::Message(SuccessorMessage::Serving)) => {
                (PredecessorStage::Finished, Some(PredecessorAction::Exit))
            }
            (PredecessorStage::HandedOver { until }, input) => {
                match failure(&input, now >= until) {
                    None => (PredecessorStage::HandedOver { until }, None),
                    Some(reason) => give_up(reason, &input, true),
                }
            }
            (PredecessorStage::Stopping { reason, was_frozen }, In::SuccessorGone) => {
                (PredecessorStage::Finished, Some(PredecessorAction::Serve { reason, was_frozen }))
            }
            (stage @ PredecessorStage::Stopping { .. }, _) => (stage, None),
        };
        self.stage = stage;
        action
    }
}

/// Ends the hand-over: by killing the successor first, unless it is gone.
fn give_up(
    reason: String,
    input: &PredecessorInput,
    was_frozen: bool,
) -> (PredecessorStage, Option<PredecessorAction>) {
    if *input == PredecessorInput::SuccessorGone {
        return (PredecessorStage::Finished, Some(PredecessorAction::Serve { reason, was_frozen }));
    }
    (PredecessorStage::Stopping { reason, was_frozen }, Some(PredecessorAction::StopSuccessor))
}

/// Why an input that is not the awaited one ends the hand-over, if it does.
fn failure(input: &PredecessorInput, is_late: bool) -> Option<String> {
    match input {
        PredecessorInput::Message(SuccessorMessage::Ready { version })
            if *version != HANDOVER_VERSION =>
        {
            Some(format!(
                "the successor speaks version {version} of the hand-over, this netftd \
                 {HANDOVER_VERSION}: restart the service instead"
            ))
        }
        PredecessorInput::Message(SuccessorMessage::Refused { reason }) => {
            Some(format!("the successor refused: {reason}"))
        }
        PredecessorInput::Message(_) | PredecessorInput::Unknown => {
            Some("the successor is no netftd that can take over".to_owned())
        }
        PredecessorInput::SuccessorGone => Some("the successor ended".to_owned()),
        PredecessorInput::Timer if is_late => Some("the successor took too long".to_owned()),
        PredecessorInput::Timer | PredecessorInput::Frozen => None,
    }
}
