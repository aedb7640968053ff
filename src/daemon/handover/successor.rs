//! The process that `netft upgrade` starts: it takes the adapter over.

use std::{
    env, io,
    os::fd::{AsFd, OwnedFd},
};

use netft::api::handover::{
    FrozenAdapter, HandoverSocket, PredecessorMessage, Successor, SuccessorAction, SuccessorInput,
    SuccessorMessage,
};

use super::{HANDOVER_ENV, receive_packet};
use crate::exit::ExitError;

/// This process as a successor, until it serves.
pub(in crate::daemon) struct RunningSuccessor {
    socket: HandoverSocket,
    machine: Successor,
}

impl RunningSuccessor {
    /// The successor that this process is, of the adapter in its config; `None` for a start of its
    /// own.
    ///
    /// # Errors
    /// The predecessor has another adapter, or standard input is no socket.
    pub(in crate::daemon) fn from_environment(adapter: &str) -> Result<Option<Self>, ExitError> {
        let Some(offered) = env::var_os(HANDOVER_ENV) else { return Ok(None) };
        if offered != *adapter {
            let offered = offered.to_string_lossy();
            return Err(ExitError::invalid_input(format!(
                "the config names adapter {adapter}, the running netftd has {offered}: restart it \
                 instead"
            )));
        }
        let end = io::stdin().as_fd().try_clone_to_owned().map_err(ExitError::bad_environment)?;
        let socket = HandoverSocket::from_inherited(end);
        Ok(Some(Self { socket, machine: Successor::new() }))
    }

    /// Tells the predecessor that this process could serve, and takes the adapter.
    ///
    /// # Errors
    /// The predecessor ended, or speaks another version.
    pub(in crate::daemon) async fn take_adapter(&mut self) -> Result<FrozenAdapter, ExitError> {
        self.advance(SuccessorInput::Prepared)?;
        tracing::info!("ready to take the adapter over");
        loop {
            let packet = receive_packet(&self.socket).await.map_err(ExitError::other_error)?;
            let Some((bytes, descriptors)) = packet else {
                self.advance(SuccessorInput::PredecessorGone)?;
                continue;
            };
            let input = match PredecessorMessage::decode(&bytes) {
                Ok(message) => SuccessorInput::Message(message),
                Err(_) => SuccessorInput::Unknown,
            };
            let message = match input {
                SuccessorInput::Message(message) => Some(message),
                _ => None,
            };
            if self.advance(input)?
                && let Some(message) = message
            {
                match self.receive_all(message, descriptors).await? {
                    Some(frozen) => return Ok(frozen),
                    None => {
                        let reason = "not all descriptors came along".to_owned();
                        self.advance(SuccessorInput::Failed(reason))?;
                    }
                }
            }
        }
    }

    /// The descriptors that came with a message, and those in the packets after it.
    async fn receive_all(
        &self,
        message: PredecessorMessage,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<Option<FrozenAdapter>, ExitError> {
        while descriptors.len() < FrozenAdapter::descriptor_count(message) {
            let packet = receive_packet(&self.socket).await.map_err(ExitError::other_error)?;
            match packet {
                Some((_, more)) if !more.is_empty() => descriptors.extend(more),
                _ => return Ok(None),
            }
        }
        Ok(FrozenAdapter::from_received(message, descriptors))
    }

    /// Tells the predecessor that this process serves.
    pub(in crate::daemon) fn report_serving(mut self) {
        // Whoever listens: the adapter is this process's.
        let _ = self.advance(SuccessorInput::Opened);
        tracing::info!("the adapter is taken over");
    }

    /// Carries out what follows from an input. Returns whether the adapter is to be opened.
    fn advance(&mut self, input: SuccessorInput) -> Result<bool, ExitError> {
        let send = |message: &SuccessorMessage| {
            let sent = self.socket.send_packet(&message.encode(), &[]);
            sent.map_err(|error| ExitError::other_error(format!("the hand-over failed: {error}")))
        };
        match self.machine.on_input(input) {
            None => Ok(false),
            Some(SuccessorAction::Send(message)) => send(&message).map(|()| false),
            Some(SuccessorAction::Open) => Ok(true),
            Some(SuccessorAction::Exit(message)) => {
                if let Some(message) = &message {
                    send(message)?;
                }
                let reason = match message {
                    Some(SuccessorMessage::Refused { reason }) => reason,
                    _ => "the netftd that runs has ended".to_owned(),
                };
                Err(ExitError::other_error(format!("not taken over: {reason}")))
            }
        }
    }
}
