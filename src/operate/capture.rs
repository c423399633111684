//! Captures for Wireshark and its like: pcap files (the format of libpcap's savefiles, pcap-savefile(5)), in which what
//! goes over a serial line has the link type RTAC serial, and Modbus TCP raw IP. Pure.
//!
//! What no capture of ours has seen is made up: the addresses of a connection, and everything of TCP but its payload.

use std::net::Ipv4Addr;

use crate::bus::speech::{Said, Speech};

/// Packets begin with an IPv4 header (LINKTYPE_RAW of tcpdump.org/linktypes.html).
const RAW: u32 = 101;
/// Packets begin with a header of a serial line (LINKTYPE_RTAC_SERIAL).
const RTAC_SERIAL: u32 = 250;
/// Most bytes of one packet.
const SNAP: u32 = 65_535;

/// Addresses that belong to nobody (RFC 5737).
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The port of Modbus TCP (Modbus Messaging on TCP/IP V1.0b, 4.1).
const MODBUS: u16 = 502;
/// The first port of those that nobody has registered (RFC 6335, 6).
const EPHEMERAL: u16 = 49_152;

/// Makes the packets of one capture.
#[derive(Debug)]
pub struct Capture {
    speech: Speech,
    opening: Option<u64>,
    /// Bytes that went out and came in on this connection.
    sent: u32,
    heard: u32,
}

impl Capture {
    /// Of a line that speaks so.
    pub fn new(speech: Speech) -> Capture {
        Capture { speech, opening: None, sent: 0, heard: 0 }
    }

    /// What the file begins with.
    pub fn header(&self) -> Vec<u8> {
        let link = if self.speech == Speech::Tcp { RAW } else { RTAC_SERIAL };
        let mut bytes = Vec::new();
        // Microseconds; version 2.4; times in UTC, of no stated accuracy.
        bytes.extend(0xA1B2_C3D4_u32.to_le_bytes());
        bytes.extend([2, 0, 4, 0]);
        bytes.extend([0; 8]);
        bytes.extend(SNAP.to_le_bytes());
        bytes.extend(link.to_le_bytes());
        bytes
    }

    /// The packet of what was said.
    pub fn packet(&mut self, said: &Said) -> Vec<u8> {
        let (seconds, micros) = (said.at.div_euclid(1_000_000), said.at.rem_euclid(1_000_000));
        let [seconds, micros] = [seconds, micros].map(|time| u32::try_from(time).unwrap_or(u32::MAX));
        let packet = match self.speech {
            Speech::Tcp => self.segment(said),
            Speech::Rtu | Speech::Ascii | Speech::Text => serial(said, seconds, micros),
        };
        let length = u32::try_from(packet.len()).unwrap_or(SNAP);
        let mut bytes = Vec::with_capacity(16 + packet.len());
        [seconds, micros, length, length].iter().for_each(|field| bytes.extend(field.to_le_bytes()));
        bytes.extend(packet);
        bytes
    }

    /// A TCP segment in an IPv4 packet (RFC 791, 3.1; RFC 9293, 3.1).
    fn segment(&mut self, said: &Said) -> Vec<u8> {
        if self.opening != Some(said.opening) {
            (self.opening, self.sent, self.heard) = (Some(said.opening), 0, 0);
        }
        let own = EPHEMERAL + (said.opening % u64::from(u16::MAX - EPHEMERAL)) as u16;
        let (sequence, acknowledged) = match said.is_request {
            true => (self.sent, self.heard),
            false => (self.heard, self.sent),
        };
        let [from, to] = if said.is_request { [(HERE, own), (THERE, MODBUS)] } else { [(THERE, MODBUS), (HERE, own)] };
        let length = u32::try_from(said.bytes.len()).unwrap_or_default();
        let so_far = if said.is_request { &mut self.sent } else { &mut self.heard };
        *so_far = so_far.wrapping_add(length);
        let mut tcp = Vec::new();
        tcp.extend(from.1.to_be_bytes());
        tcp.extend(to.1.to_be_bytes());
        tcp.extend(sequence.wrapping_add(1).to_be_bytes());
        tcp.extend(acknowledged.wrapping_add(1).to_be_bytes());
        // A header of five words; PSH and ACK; a full window; no checksum yet, nothing urgent.
        tcp.extend([5 << 4, 0x18, 0xFF, 0xFF, 0, 0, 0, 0]);
        tcp.extend(&said.bytes);
        let counted = u16::try_from(tcp.len()).unwrap_or(u16::MAX);
        let mut pseudo = [from.0.octets(), to.0.octets()].concat();
        pseudo.extend([0, 6]);
        pseudo.extend(counted.to_be_bytes());
        pseudo.extend(&tcp);
        tcp[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        // Version 4 with a header of five words; not to be fragmented; 64 hops; TCP.
        let mut ip = vec![0x45, 0];
        ip.extend(counted.saturating_add(20).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip.extend(from.0.octets());
        ip.extend(to.0.octets());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend(tcp);
        ip
    }
}

/// A packet of a serial line (LINKTYPE_RTAC_SERIAL): its time once more, what happened, the state of the control lines,
/// which is not known, and two bytes that are reserved.
fn serial(said: &Said, seconds: u32, micros: u32) -> Vec<u8> {
    const SENT: u8 = 0x01;
    const RECEIVED: u8 = 0x02;
    let mut bytes = [seconds.to_be_bytes(), micros.to_be_bytes()].concat();
    bytes.extend([if said.is_request { SENT } else { RECEIVED }, 0, 0, 0]);
    bytes.extend(&said.bytes);
    bytes
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let sum: u32 = pairs.sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    !(((folded & 0xFFFF) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(at: i64, is_request: bool, bytes: &[u8]) -> Said {
        Said { at, is_request, opening: 3, bytes: bytes.to_vec(), text: String::new() }
    }

    #[test]
    fn the_checksum_is_that_of_a_known_packet() {
        // An IPv4 header that is in many a textbook, its checksum B861 left out.
        let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xC0, 0xA8, 0, 1, 0xC0, 0xA8, 0, 0xC7];
        assert_eq!(checksum(&header), 0xB861);
        assert_eq!(checksum(&[0xFF]), 0x00FF);
    }

    #[test]
    fn a_serial_line_is_captured_as_its_link_type_is_laid_out() {
        let mut capture = Capture::new(Speech::Rtu);
        let header = capture.header();
        assert_eq!(header[..8], [0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0]);
        assert_eq!((header.len(), header[20]), (24, 250));
        let time = 1_796_011_200_000_012_i64;
        let packet = capture.packet(&said(time, true, &[7, 3]));
        let seconds = ((time / 1_000_000) as u32).to_le_bytes();
        let micros = ((time % 1_000_000) as u32).to_le_bytes();
        assert_eq!(packet[..8], [seconds, micros].concat());
        assert_eq!(packet[8..16], [14, 0, 0, 0, 14, 0, 0, 0]);
        let turned = |bytes: [u8; 4]| [bytes[3], bytes[2], bytes[1], bytes[0]];
        assert_eq!(packet[16..24], [turned(seconds), turned(micros)].concat());
        assert_eq!(packet[24..], [1, 0, 0, 0, 7, 3]);
        assert_eq!(capture.packet(&said(0, false, &[9]))[24..], [2, 0, 0, 0, 9]);
    }

    #[test]
    fn modbus_tcp_is_captured_in_segments_that_follow_one_another() {
        let mut capture = Capture::new(Speech::Tcp);
        assert_eq!(capture.header()[20], 101);
        let asked = capture.packet(&said(0, true, &[1; 12]));
        let answered = capture.packet(&said(0, false, &[2; 11]));
        let next = capture.packet(&said(0, true, &[3; 12]));
        let ip = |packet: &[u8]| packet[16..].to_vec();
        let word =
            |bytes: &[u8], at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        for (packet, from, to, sequence, acknowledged) in [
            (ip(&asked), (HERE, 49_155_u16), (THERE, 502_u16), 1, 1),
            (ip(&answered), (THERE, 502), (HERE, 49_155), 1, 13),
            (ip(&next), (HERE, 49_155), (THERE, 502), 13, 12),
        ] {
            assert_eq!((packet[0], packet[9]), (0x45, 6));
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
            assert_eq!(packet[12..20], [from.0.octets(), to.0.octets()].concat());
            assert_eq!(packet[20..24], [from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
            assert_eq!((word(&packet, 24), word(&packet, 28)), (sequence, acknowledged));
            // What stands in both headers sums up with its checksum to nothing.
            assert_eq!(checksum(&packet[..20]), 0);
            let length = (packet.len() - 20) as u16;
            let pseudo = [&packet[12..20], &[0, 6], &length.to_be_bytes(), &packet[20..]].concat();
            assert_eq!(checksum(&pseudo), 0);
        }
        assert_eq!(ip(&asked)[40..], [1; 12]);
        let other = capture.packet(&Said { opening: 4, ..said(0, true, &[4]) });
        assert_eq!((word(&ip(&other), 24), ip(&other)[20..22].to_vec()), (1, 49_156_u16.to_be_bytes().to_vec()));
    }
}
