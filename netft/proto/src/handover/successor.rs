//! The started process that takes an adapter over.

use crate::handover::message::{HANDOVER_VERSION, PredecessorMessage, SuccessorMessage};

/// An input of the successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuccessorInput {
    /// Config and environment are read and right.
    Prepared,
    /// A message arrived.
    Message(PredecessorMessage),
    /// A packet arrived that is no message.
    Unknown,
    /// The adapter is open.
    Opened,
    /// Something failed; the reason.
    Failed(String),
    /// The predecessor ended.
    PredecessorGone,
}

/// An action of the successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuccessorAction {
    /// Send this message.
    Send(SuccessorMessage),
    /// Open the adapter with the descriptors that came along.
    Open,
    /// End, after this message if there is anybody to read it.
    Exit(Option<SuccessorMessage>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SuccessorStage {
    Preparing,
    Ready,
    Opening,
    Finished,
}

/// The successor's side of one hand-over.
#[derive(Clone, Debug)]
pub struct Successor {
    stage: SuccessorStage,
}

impl Successor {
    /// A process that was started to take over.
    #[expect(clippy::new_without_default, reason = "it stands for a process, not for a value")]
    pub const fn new() -> Self {
        Self { stage: SuccessorStage::Preparing }
    }

    /// Takes in an input. Returns what is to be done.
    pub fn on_input(&mut self, input: SuccessorInput) -> Option<SuccessorAction> {
        use SuccessorInput as In;
        let (stage, action) = match (self.stage, input) {
            (SuccessorStage::Finished, _) => (SuccessorStage::Finished, None),
            (SuccessorStage::Preparing, In::Prepared) => {
                let ready = SuccessorMessage::Ready { version: HANDOVER_VERSION };
                (SuccessorStage::Ready, Some(SuccessorAction::Send(ready)))
            }
            (SuccessorStage::Ready, In::Message(PredecessorMessage::Take { version, .. })) => {
                if version == HANDOVER_VERSION {
                    (SuccessorStage::Opening, Some(SuccessorAction::Open))
                } else {
                    refuse(format!("version {version} of the hand-over is unknown"))
                }
            }
            (SuccessorStage::Opening, In::Opened) => {
                (SuccessorStage::Finished, Some(SuccessorAction::Send(SuccessorMessage::Serving)))
            }
            (_, In::Failed(reason)) => refuse(reason),
            // The adapter is this process's: it serves, whoever listens.
            (SuccessorStage::Opening, In::PredecessorGone) => (SuccessorStage::Opening, None),
            // Without the predecessor's descriptors its adapter is not this process's to take.
            (_, In::PredecessorGone) => {
                (SuccessorStage::Finished, Some(SuccessorAction::Exit(None)))
            }
            (_, In::Message(_) | In::Unknown | In::Prepared | In::Opened) => {
                refuse("a message out of order".to_owned())
            }
        };
        self.stage = stage;
        action
    }
}

fn refuse(reason: String) -> (SuccessorStage, Option<SuccessorAction>) {
    let refusal = SuccessorMessage::Refused { reason };
    (SuccessorStage::Finished, Some(SuccessorAction::Exit(Some(refusal))))
}
