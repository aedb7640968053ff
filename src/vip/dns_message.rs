//! One update of a zone: its message (RFC 2136, RFC 8945), by `hickory-proto`, and its exchange.

use std::{io, net::SocketAddr, str::FromStr, time::Duration};

use hickory_proto::{
    op::{Message, OpCode, Query, ResponseCode, UpdateMessage},
    rr::{
        DNSClass, Name, RData, Record, RecordType, TSigVerifier, TSigner,
        rdata::{A, AAAA},
    },
};
use netft::vip::{DnsRecord, DnsUpdate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest answer that is read: an answer to an update has a header, the zone and a signature.
const MAX_ANSWER: u16 = 4096;
/// Longest exchange.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(4);

/// A server, a zone, and the right to change it.
#[derive(Clone)]
pub(super) struct DnsZone {
    pub(super) server: SocketAddr,
    pub(super) zone: String,
    pub(super) key: TSigner,
    /// Time to live of records, seconds.
    pub(super) ttl: u32,
}

impl DnsZone {
    /// Sends an update over TCP, and waits for its end.
    ///
    /// # Errors
    /// The server cannot be reached, does not answer in time, refuses, or is not who it should be.
    pub(super) async fn send_update(
        &self,
        update: &DnsUpdate,
        unix_secs: u64,
    ) -> Result<(), String> {
        let server = self.server;
        let (bytes, mut verifier) = self.encode(update, unix_secs)?;
        let exchange = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange(server, &bytes));
        let answer = match exchange.await {
            Ok(answer) => answer.map_err(|error| format!("DNS server {server}: {error}"))?,
            Err(_) => return Err(format!("DNS server {server} does not answer")),
        };
        read_answer(&answer, &mut verifier)
            .map_err(|why| format!("DNS server {server}, zone {}: {why}", self.zone))
    }

    fn encode(
        &self,
        update: &DnsUpdate,
        unix_secs: u64,
    ) -> Result<(Vec<u8>, TSigVerifier), String> {
        let zone = whole_name(&self.zone)?;
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.metadata.recursion_desired = false;
        let mut query = Query::query(zone, RecordType::SOA);
        query.set_query_class(DNSClass::IN);
        message.add_zone(query);
        for record in &update.removed {
            // RFC 2136 section 2.5.4: this record of the set.
            let mut gone = to_record(record, 0)?;
            gone.dns_class = DNSClass::NONE;
            message.add_update(gone);
        }
        for record in &update.added {
            message.add_update(to_record(record, self.ttl)?);
        }
        let failed = |error: hickory_proto::ProtoError| format!("cannot sign an update: {error}");
        let verifier = message.finalize(&self.key, unix_secs).map_err(failed)?;
        let verifier = verifier.ok_or("cannot sign an update")?;
        Ok((message.to_vec().map_err(failed)?, verifier))
    }
}

fn whole_name(text: &str) -> Result<Name, String> {
    let mut name = Name::from_str(text).map_err(|error| format!("{text}: {error}"))?;
    name.set_fqdn(true);
    Ok(name)
}

fn to_record(record: &DnsRecord, ttl: u32) -> Result<Record, String> {
    let data = match record.addr {
        std::net::IpAddr::V4(v4) => RData::A(A(v4)),
        std::net::IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Ok(Record::from_rdata(whole_name(&record.name)?, ttl, data))
}

/// One request and its answer, with lengths before them (RFC 7766 section 8).
async fn exchange(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend_from_slice(request);
    stream.write_all(&framed).await?;
    let len = stream.read_u16().await?;
    if len > MAX_ANSWER {
        return Err(io::Error::other(format!("an answer of {len} bytes")));
    }
    let mut answer = vec![0; len.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The end of an update.
fn read_answer(answer: &[u8], verifier: &mut TSigVerifier) -> Result<(), String> {
    let message =
        Message::from_vec(answer).map_err(|error| format!("malformed answer: {error}"))?;
    let code = message.metadata.response_code;
    // A server that does not know the key cannot sign.
    let verified = verifier.verify(answer);
    match (code, verified) {
        (ResponseCode::NoError, Ok(_)) => Ok(()),
        (ResponseCode::NoError, Err(error)) => {
            Err(format!("the answer is not signed by the key: {error}"))
        }
        (ResponseCode::Refused, _) => {
            Err("refused: allow the key to update the zone (update-policy, allow-update)"
                .to_owned())
        }
        (ResponseCode::NotAuth | ResponseCode::BADKEY | ResponseCode::BADSIG, _) => Err(
            "not authorized: the server does not serve the zone, does not know the key, or its \
             clock differs"
                .to_owned(),
        ),
        (code, _) => Err(format!("{code}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hickory_proto::rr::rdata::tsig::TsigAlgorithm;

    use super::*;

    fn zone() -> DnsZone {
        let name = Name::from_str("key.").unwrap();
        let key = TSigner::new(vec![7; 32], TsigAlgorithm::HmacSha256, name, 300).unwrap();
        DnsZone {
            server: "127.0.0.1:53".parse().unwrap(),
            zone: "example".to_owned(),
            key,
            ttl: 60,
        }
    }

    fn record(addr: &str) -> DnsRecord {
        DnsRecord { name: "web.example".to_owned(), addr: addr.parse().unwrap() }
    }

    fn update() -> DnsUpdate {
        DnsUpdate { added: vec![record("10.1.0.80")], removed: vec![record("fd01::80")] }
    }

    #[test]
    fn an_update_adds_and_removes_single_records_under_a_signature() {
        let (bytes, _) = zone().encode(&update(), 1_000_000).unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.op_code, OpCode::Update);
        assert_eq!(message.zones()[0].name(), &Name::from_str("example.").unwrap());
        let shown: Vec<_> = message
            .updates()
            .iter()
            .map(|one| (one.dns_class, one.ttl, one.data.to_string()))
            .collect();
        let expected = [
            (DNSClass::NONE, 0, "fd01::80".to_owned()),
            (DNSClass::IN, 60, "10.1.0.80".to_owned()),
        ];
        assert_eq!(shown, expected);
        let checked = zone().key.verify_message_byte(&bytes, None, true);
        assert_eq!(checked.unwrap().1, 1_000_000, "the time of the signature");
    }

    #[test]
    fn an_answer_counts_only_if_the_key_signed_it() {
        let (bytes, mut verifier) = zone().encode(&update(), 1_000_000).unwrap();
        let request = Message::from_vec(&bytes).unwrap();
        let mut answer = Message::response(request.metadata.id, OpCode::Update);
        let unsigned = answer.to_vec().unwrap();
        let why = read_answer(&unsigned, &mut verifier).unwrap_err();
        assert!(why.contains("not signed"), "{why}");
        for (code, words) in [
            (ResponseCode::Refused, "allow the key"),
            (ResponseCode::NotAuth, "does not know the key"),
            (ResponseCode::ServFail, "Server Failure"),
        ] {
            answer.metadata.response_code = code;
            let why = read_answer(&answer.to_vec().unwrap(), &mut verifier).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn no_bytes_panic_the_reader() {
        let (bytes, mut verifier) = zone().encode(&update(), 1_000_000).unwrap();
        let mut random: u64 = 7;
        for round in 0..20_000_usize {
            let mut damaged = bytes.clone();
            damaged.truncate(bytes.len() - round % bytes.len());
            for _ in 0..round % 5 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (random >> 33) as usize % damaged.len();
                damaged[at] ^= (random >> 20) as u8;
            }
            let _ = read_answer(&damaged, &mut verifier);
        }
    }
}
