//! Questions between two nodes that have a session: each is a stream of its own on the session's
//! QUIC connection, whole question there, whole answer back, bytes that mean nothing here.
//!
//! Both ends say by the protocol they agree on in TLS that they take questions, so one that does
//! not is never asked, and never sees such a stream. Bounds: one question of a peer at a time, one
//! a second per session; [`MAX_QUESTION`] and [`MAX_ANSWER`] bytes; [`PATIENCE`].

use std::{fmt, time::Duration};

use netft_proto::ids::PeerId;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use crate::io::quic::tls;

/// The most bytes of a question.
const MAX_QUESTION: usize = 256;
/// The most bytes of an answer.
pub const MAX_ANSWER: usize = 64 * 1024;
/// The most questions that wait for whoever answers; more wait in their sessions.
pub(in crate::io) const QUESTIONS: usize = 16;
/// How long an answer may take, from the asking on.
pub(in crate::io) const PATIENCE: Duration = Duration::from_secs(4);
/// The least time between the beginnings of two answers to one peer.
const REST: Duration = Duration::from_secs(1);
/// What the stream of a question is reset with that nobody answers.
const UNANSWERED: VarInt = VarInt::from_u32(1);

/// Why a peer gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No peer has this number.
    #[error("there is no such peer")]
    Unknown,
    /// There is no session to ask on.
    #[error("there is no session with it")]
    NoSession,
    /// The peer takes no questions.
    #[error("its netftd is too old to be asked")]
    TooOld,
    /// Nothing came in time.
    #[error("it gave no answer within {} s", PATIENCE.as_secs())]
    Late,
    /// It does not answer this question, or its answer is too long, or the session ended.
    #[error("it gave no answer")]
    Refused,
    /// The question is too long.
    #[error("a question has at most {MAX_QUESTION} bytes")]
    TooLong,
}

/// What a peer asks.
pub struct Question {
    /// Who asks. It has proven its key.
    pub peer: PeerId,
    /// What: at most 256 bytes.
    pub question: Vec<u8>,
    /// Where the answer goes, at most [`MAX_ANSWER`] bytes. Dropped, the question is refused.
    pub answer: oneshot::Sender<Vec<u8>>,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Asks on a connection.
pub(in crate::io) async fn ask(
    connection: &Connection,
    question: &[u8],
) -> Result<Vec<u8>, AskError> {
    if question.len() > MAX_QUESTION {
        return Err(AskError::TooLong);
    }
    if !tls::takes_questions(connection) {
        return Err(AskError::TooOld);
    }
    if connection.close_reason().is_some() {
        return Err(AskError::NoSession);
    }
    let talk = async {
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        send.write_all(question).await.ok()?;
        send.finish().ok()?;
        recv.read_to_end(MAX_ANSWER).await.ok()
    };
    timeout(PATIENCE, talk).await.map_err(|_| AskError::Late)?.ok_or(AskError::Refused)
}

/// Hands the peer's questions over, and gives the answers back, until the connection ends.
pub(in crate::io) async fn answer(
    connection: Connection,
    peer: PeerId,
    to: mpsc::Sender<Question>,
) {
    while let Ok((mut send, recv)) = connection.accept_bi().await {
        let next = Instant::now() + REST;
        let answered = timeout(PATIENCE, one(peer, &mut send, recv, &to)).await;
        if !matches!(answered, Ok(Some(()))) {
            // A stream that has ended needs no reset.
            let _ = send.reset(UNANSWERED);
        }
        sleep_until(next).await;
    }
}

async fn one(
    peer: PeerId,
    send: &mut SendStream,
    mut recv: RecvStream,
    to: &mpsc::Sender<Question>,
) -> Option<()> {
    let question = recv.read_to_end(MAX_QUESTION).await.ok()?;
    let (answer, told) = oneshot::channel();
    to.send(Question { peer, question, answer }).await.ok()?;
    let answer = told.await.ok().filter(|answer| answer.len() <= MAX_ANSWER)?;
    send.write_all(&answer).await.ok()?;
    send.finish().ok()
}
