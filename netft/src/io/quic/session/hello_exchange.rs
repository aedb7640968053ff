//! What two nodes tell each other on a fresh QUIC connection before either counts it as a session.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use netft_proto::{
    config::Config,
    ids::{PeerId, virtual_addrs::VirtualAddrs},
    session::{Cipher, Session, SessionParams},
    wire::{header::VERSION, hello, hello::Hello},
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use zeroize::Zeroizing;

use crate::io::quic::{
    failure::{Failure, Refusal},
    session::{
        peer::Event,
        peer_query::Question,
        session_id::{Number, Numbers},
    },
    tls,
};

/// Tag of the last word of each side; the dialer's is followed by the generation.
pub(in crate::io) const READY: u8 = 1;
/// What the keys are exported for (RFC 8446 section 7.5).
const EXPORTER: &[u8] = b"EXPORTER-netft";
/// How long the exchange may take after the handshake: a few round trips of the slowest network.
const PATIENCE: Duration = Duration::from_secs(3);

/// What this node brings to every exchange with one peer.
#[derive(Clone)]
pub(in crate::io) struct Terms {
    pub(in crate::io) config: Arc<Config>,
    pub(in crate::io) peer: PeerId,
    /// The virtual addresses the config gives the peer.
    pub(in crate::io) peer_addrs: VirtualAddrs,
    pub(in crate::io) peer_key: crate::NodeKey,
    /// Of this process.
    pub(in crate::io) boot_id: u64,
    pub(in crate::io) numbers: Numbers,
    /// The highest generation of this process, with any peer: a peer that goes and comes again may
    /// hold a session of before, which a fresh one must outrank.
    pub(in crate::io) generations: Arc<AtomicU32>,
    /// Whether this node's adapter is up.
    pub(in crate::io) adapter_up: Arc<AtomicBool>,
    /// Where the peer's questions go.
    pub(in crate::io) questions: mpsc::Sender<Question>,
    /// Where the peer's task is asked whether a boot id may join.
    pub(in crate::io) events: mpsc::Sender<Event>,
}

/// Which end of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Side {
    /// Opens the stream and announces the generation.
    Dialer,
    /// Answers.
    Acceptor,
}

/// Two nodes that have accepted each other.
pub(in crate::io) struct Agreed {
    pub(in crate::io) connection: Connection,
    pub(in crate::io) send: SendStream,
    pub(in crate::io) recv: RecvStream,
    pub(in crate::io) number: Number,
    pub(in crate::io) session: Arc<Session>,
    pub(in crate::io) boot_id: u64,
    pub(in crate::io) peer_name: String,
    pub(in crate::io) adapter_up: bool,
    pub(in crate::io) side: Side,
    pub(in crate::io) generation: u32,
}

/// Runs the exchange. A dialer announces `generation`, an acceptor learns it.
pub(in crate::io) async fn run(
    terms: &Terms,
    connection: Connection,
    side: Side,
    generation: u32,
) -> Result<Agreed, Failure> {
    let talk = async {
        match side {
            Side::Dialer => dial(terms, &connection, generation).await,
            Side::Acceptor => accept(terms, &connection).await,
        }
    };
    let outcome = timeout(PATIENCE, talk)
        .await
        .unwrap_or_else(|_| Err(Failure::Lost("the hello did not arrive in time".to_owned())));
    if let Err(Failure::Refused(refusal)) = &outcome {
        connection.close(refusal.code(), refusal.to_string().as_bytes());
    }
    outcome
}

async fn dial(terms: &Terms, connection: &Connection, generation: u32) -> Result<Agreed, Failure> {
    identify(terms, connection)?;
    let number = terms.numbers.take().ok_or(Refusal::Random)?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send_hello(terms, &number, &mut send).await?;
    let hello = receive_hello(terms, &mut recv).await?;
    agree(terms, connection, (send, recv), number, hello, (Side::Dialer, generation))
}

async fn accept(terms: &Terms, connection: &Connection) -> Result<Agreed, Failure> {
    identify(terms, connection)?;
    let (mut send, mut recv) = connection.accept_bi().await?;
    let hello = receive_hello(terms, &mut recv).await?;
    let number = terms.numbers.take().ok_or(Refusal::Random)?;
    // The answer says that the dialer is accepted, so nothing is checked after it.
    send_hello(terms, &number, &mut send).await?;
    let mut ready = [0; 5];
    recv.read_exact(&mut ready).await?;
    let [READY, generation @ ..] = ready else { return Err(Refusal::Malformed.into()) };
    let generation = u32::from_be_bytes(generation);
    agree(terms, connection, (send, recv), number, hello, (Side::Acceptor, generation))
}

/// TLS accepts any configured peer; this one must be the one at this address, because answers go
/// to that peer's routes.
fn identify(terms: &Terms, connection: &Connection) -> Result<(), Refusal> {
    match tls::proven_key(connection) {
        Some(key) if key == terms.peer_key => Ok(()),
        _ => Err(Refusal::WrongPeer),
    }
}

async fn send_hello(
    terms: &Terms,
    number: &Number,
    stream: &mut SendStream,
) -> Result<(), Failure> {
    let hello = Hello {
        version: VERSION,
        boot_id: terms.boot_id,
        session: number.get(),
        virtual_v4: terms.config.addrs.v4,
        virtual_v6: terms.config.addrs.v6,
        aes: has_aes(),
        adapter_up: terms.adapter_up.load(Relaxed),
        slices: true,
        name: terms.config.name.clone(),
    };
    let mut message = vec![0; 2];
    hello.encode(&mut message);
    let length = u16::try_from(message.len() - 2).expect("a hello is at most MAX_LEN bytes");
    message[..2].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&message).await?;
    Ok(())
}

async fn receive_hello(terms: &Terms, stream: &mut RecvStream) -> Result<Hello, Failure> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    let mut body = [0; hello::MAX_LEN];
    let body = body.get_mut(..length).filter(|body| !body.is_empty()).ok_or(Refusal::Malformed)?;
    stream.read_exact(body).await?;
    let hello = check(body, terms.peer_addrs)?;
    let (reply, verdict) = oneshot::channel();
    let question = Event::Judge { boot_id: hello.boot_id, reply };
    let gone = |()| Failure::Lost("this node is stopping".to_owned());
    terms.events.send(question).await.map_err(|_| gone(()))?;
    verdict.await.map_err(|_| gone(()))??;
    Ok(hello)
}

/// Whether the hello fits the config.
fn check(body: &[u8], configured: VirtualAddrs) -> Result<Hello, Refusal> {
    // The version stays the first byte of every future hello.
    match body.first() {
        Some(&VERSION) => {}
        Some(&theirs) => return Err(Refusal::Version { theirs }),
        None => return Err(Refusal::Malformed),
    }
    let hello = Hello::decode(body).map_err(|_| Refusal::Malformed)?;
    let said = VirtualAddrs { v4: hello.virtual_v4, v6: hello.virtual_v6 };
    if said != configured {
        return Err(Refusal::Addresses { said, configured });
    }
    if hello.session == 0 {
        return Err(Refusal::Malformed);
    }
    Ok(hello)
}

fn agree(
    terms: &Terms,
    connection: &Connection,
    (send, recv): (SendStream, RecvStream),
    number: Number,
    hello: Hello,
    (side, generation): (Side, u32),
) -> Result<Agreed, Failure> {
    let (dialer, acceptor) = match side {
        Side::Dialer => (number.get(), hello.session),
        Side::Acceptor => (hello.session, number.get()),
    };
    // Binds the keys to the two numbers the frames carry.
    let context = [dialer.to_be_bytes(), acceptor.to_be_bytes()].concat();
    let mut material = Zeroizing::new([0; 64]);
    connection
        .export_keying_material(&mut *material, EXPORTER, &context)
        .map_err(|_| Failure::Tls("TLS exports no keys".to_owned()))?;
    let mut from_dialer = Zeroizing::new([0; 32]);
    let mut from_acceptor = Zeroizing::new([0; 32]);
    from_dialer.copy_from_slice(&material[..32]);
    from_acceptor.copy_from_slice(&material[32..]);
    let (tx, rx) = match side {
        Side::Dialer => (from_dialer, from_acceptor),
        Side::Acceptor => (from_acceptor, from_dialer),
    };
    let session = Session::new(SessionParams {
        peer: terms.peer,
        peer_addrs: terms.peer_addrs,
        local: number.get(),
        remote: hello.session,
        boot_id: hello.boot_id,
        cipher: if hello.aes && has_aes() { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 },
        tx_secret: *tx,
        rx_secret: *rx,
    })
    .taking_slices(hello.slices);
    Ok(Agreed {
        connection: connection.clone(),
        send,
        recv,
        number,
        session: Arc::new(session),
        boot_id: hello.boot_id,
        peer_name: hello.name,
        adapter_up: hello.adapter_up,
        side,
        generation,
    })
}

/// Whether this CPU has AES instructions.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}
