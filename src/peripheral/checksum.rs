//! Checksums of frames: the simple sums, and the CRCs of the catalogue. Pure.

use crc::{Algorithm, Crc, NoTable};

/// The checksum of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checksum {
    /// How it is computed.
    pub kind: Kind,
    /// How it stands on the line.
    pub spelling: Spelling,
    /// It is computed over the start of the frame, too.
    pub covers_start: bool,
}

/// How a checksum is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// All bytes by exclusive or; often called BCC.
    Xor8,
    /// The sum of all bytes, without what is above eight bits.
    Sum8,
    /// The two's complement of that sum, so that all bytes and it add up to nothing.
    Lrc8,
    /// A CRC of 8 bits.
    Crc8(&'static Algorithm<u8>),
    /// A CRC of 16 bits.
    Crc16(&'static Algorithm<u16>),
    /// A CRC of 24 or 32 bits.
    Crc32(&'static Algorithm<u32>),
}

/// How a checksum stands on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As bytes, the lowest first.
    LittleEndian,
    /// As bytes, the highest first.
    BigEndian,
    /// As hexadecimal digits, the highest first.
    Hex,
}

impl Kind {
    /// Bytes of the checksum itself.
    pub fn size(self) -> usize {
        match self {
            Kind::Xor8 | Kind::Sum8 | Kind::Lrc8 | Kind::Crc8(_) => 1,
            Kind::Crc16(_) => 2,
            Kind::Crc32(algorithm) => usize::from(algorithm.width) / 8,
        }
    }

    fn of(self, bytes: &[u8]) -> u32 {
        let sum = || bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        match self {
            Kind::Xor8 => bytes.iter().fold(0, |sum, byte| sum ^ byte).into(),
            Kind::Sum8 => sum().into(),
            Kind::Lrc8 => sum().wrapping_neg().into(),
            Kind::Crc8(algorithm) => Crc::<u8, NoTable>::new(algorithm).checksum(bytes).into(),
            Kind::Crc16(algorithm) => Crc::<u16, NoTable>::new(algorithm).checksum(bytes).into(),
            Kind::Crc32(algorithm) => Crc::<u32, NoTable>::new(algorithm).checksum(bytes),
        }
    }
}

impl Checksum {
    /// Bytes that it takes on the line.
    pub fn size(&self) -> usize {
        self.kind.size() * if self.spelling == Spelling::Hex { 2 } else { 1 }
    }

    /// As it stands behind a payload that has this start.
    pub fn of(&self, start: &[u8], payload: &[u8]) -> Vec<u8> {
        let covered = if self.covers_start { [start, payload].concat() } else { payload.to_vec() };
        let mut bytes = self.kind.of(&covered).to_le_bytes()[..self.kind.size()].to_vec();
        if self.spelling != Spelling::LittleEndian {
            bytes.reverse();
        }
        match self.spelling {
            Spelling::Hex => bytes.iter().flat_map(|byte| format!("{byte:02X}").into_bytes()).collect(),
            _ => bytes,
        }
    }

    /// Whether two of them, as they stand on the line, are the same: digits may be in upper or lower case.
    pub fn is_same(&self, a: &[u8], b: &[u8]) -> bool {
        if self.spelling == Spelling::Hex {
            a.eq_ignore_ascii_case(b)
        } else {
            a == b
        }
    }
}

/// Every kind by its name: the CRCs of the catalogue (reveng.sourceforge.io/crc-catalogue) that are whole bytes long.
#[rustfmt::skip]
pub const KINDS: [(&str, Kind); 74] = [
    ("xor8", Kind::Xor8),
    ("sum8", Kind::Sum8),
    ("lrc8", Kind::Lrc8),
    ("crc8-autosar", Kind::Crc8(&crc::CRC_8_AUTOSAR)),
    ("crc8-bluetooth", Kind::Crc8(&crc::CRC_8_BLUETOOTH)),
    ("crc8-cdma2000", Kind::Crc8(&crc::CRC_8_CDMA2000)),
    ("crc8-darc", Kind::Crc8(&crc::CRC_8_DARC)),
    ("crc8-dvb-s2", Kind::Crc8(&crc::CRC_8_DVB_S2)),
    ("crc8-gsm-a", Kind::Crc8(&crc::CRC_8_GSM_A)),
    ("crc8-gsm-b", Kind::Crc8(&crc::CRC_8_GSM_B)),
    ("crc8-hitag", Kind::Crc8(&crc::CRC_8_HITAG)),
    ("crc8-i-432-1", Kind::Crc8(&crc::CRC_8_I_432_1)),
    ("crc8-i-code", Kind::Crc8(&crc::CRC_8_I_CODE)),
    ("crc8-lte", Kind::Crc8(&crc::CRC_8_LTE)),
    ("crc8-maxim-dow", Kind::Crc8(&crc::CRC_8_MAXIM_DOW)),
    ("crc8-mifare-mad", Kind::Crc8(&crc::CRC_8_MIFARE_MAD)),
    ("crc8-nrsc-5", Kind::Crc8(&crc::CRC_8_NRSC_5)),
    ("crc8-opensafety", Kind::Crc8(&crc::CRC_8_OPENSAFETY)),
    ("crc8-rohc", Kind::Crc8(&crc::CRC_8_ROHC)),
    ("crc8-sae-j1850", Kind::Crc8(&crc::CRC_8_SAE_J1850)),
    ("crc8-smbus", Kind::Crc8(&crc::CRC_8_SMBUS)),
    ("crc8-tech-3250", Kind::Crc8(&crc::CRC_8_TECH_3250)),
    ("crc8-wcdma", Kind::Crc8(&crc::CRC_8_WCDMA)),
    ("crc16-arc", Kind::Crc16(&crc::CRC_16_ARC)),
    ("crc16-cdma2000", Kind::Crc16(&crc::CRC_16_CDMA2000)),
    ("crc16-cms", Kind::Crc16(&crc::CRC_16_CMS)),
    ("crc16-dds-110", Kind::Crc16(&crc::CRC_16_DDS_110)),
    ("crc16-dect-r", Kind::Crc16(&crc::CRC_16_DECT_R)),
    ("crc16-dect-x", Kind::Crc16(&crc::CRC_16_DECT_X)),
    ("crc16-dnp", Kind::Crc16(&crc::CRC_16_DNP)),
    ("crc16-en-13757", Kind::Crc16(&crc::CRC_16_EN_13757)),
    ("crc16-genibus", Kind::Crc16(&crc::CRC_16_GENIBUS)),
    ("crc16-gsm", Kind::Crc16(&crc::CRC_16_GSM)),
    ("crc16-ibm-3740", Kind::Crc16(&crc::CRC_16_IBM_3740)),
    ("crc16-ibm-sdlc", Kind::Crc16(&crc::CRC_16_IBM_SDLC)),
    ("crc16-iso-iec-14443-3-a", Kind::Crc16(&crc::CRC_16_ISO_IEC_14443_3_A)),
    ("crc16-kermit", Kind::Crc16(&crc::CRC_16_KERMIT)),
    ("crc16-lj1200", Kind::Crc16(&crc::CRC_16_LJ1200)),
    ("crc16-m17", Kind::Crc16(&crc::CRC_16_M17)),
    ("crc16-maxim-dow", Kind::Crc16(&crc::CRC_16_MAXIM_DOW)),
    ("crc16-mcrf4xx", Kind::Crc16(&crc::CRC_16_MCRF4XX)),
    ("crc16-modbus", Kind::Crc16(&crc::CRC_16_MODBUS)),
    ("crc16-nrsc-5", Kind::Crc16(&crc::CRC_16_NRSC_5)),
    ("crc16-opensafety-a", Kind::Crc16(&crc::CRC_16_OPENSAFETY_A)),
    ("crc16-opensafety-b", Kind::Crc16(&crc::CRC_16_OPENSAFETY_B)),
    ("crc16-profibus", Kind::Crc16(&crc::CRC_16_PROFIBUS)),
    ("crc16-riello", Kind::Crc16(&crc::CRC_16_RIELLO)),
    ("crc16-spi-fujitsu", Kind::Crc16(&crc::CRC_16_SPI_FUJITSU)),
    ("crc16-t10-dif", Kind::Crc16(&crc::CRC_16_T10_DIF)),
    ("crc16-teledisk", Kind::Crc16(&crc::CRC_16_TELEDISK)),
    ("crc16-tms37157", Kind::Crc16(&crc::CRC_16_TMS37157)),
    ("crc16-umts", Kind::Crc16(&crc::CRC_16_UMTS)),
    ("crc16-usb", Kind::Crc16(&crc::CRC_16_USB)),
    ("crc16-xmodem", Kind::Crc16(&crc::CRC_16_XMODEM)),
    ("crc24-ble", Kind::Crc32(&crc::CRC_24_BLE)),
    ("crc24-flexray-a", Kind::Crc32(&crc::CRC_24_FLEXRAY_A)),
    ("crc24-flexray-b", Kind::Crc32(&crc::CRC_24_FLEXRAY_B)),
    ("crc24-interlaken", Kind::Crc32(&crc::CRC_24_INTERLAKEN)),
    ("crc24-lte-a", Kind::Crc32(&crc::CRC_24_LTE_A)),
    ("crc24-lte-b", Kind::Crc32(&crc::CRC_24_LTE_B)),
    ("crc24-openpgp", Kind::Crc32(&crc::CRC_24_OPENPGP)),
    ("crc24-os-9", Kind::Crc32(&crc::CRC_24_OS_9)),
    ("crc32-aixm", Kind::Crc32(&crc::CRC_32_AIXM)),
    ("crc32-autosar", Kind::Crc32(&crc::CRC_32_AUTOSAR)),
    ("crc32-base91-d", Kind::Crc32(&crc::CRC_32_BASE91_D)),
    ("crc32-bzip2", Kind::Crc32(&crc::CRC_32_BZIP2)),
    ("crc32-cd-rom-edc", Kind::Crc32(&crc::CRC_32_CD_ROM_EDC)),
    ("crc32-cksum", Kind::Crc32(&crc::CRC_32_CKSUM)),
    ("crc32-iscsi", Kind::Crc32(&crc::CRC_32_ISCSI)),
    ("crc32-iso-hdlc", Kind::Crc32(&crc::CRC_32_ISO_HDLC)),
    ("crc32-jamcrc", Kind::Crc32(&crc::CRC_32_JAMCRC)),
    ("crc32-mef", Kind::Crc32(&crc::CRC_32_MEF)),
    ("crc32-mpeg-2", Kind::Crc32(&crc::CRC_32_MPEG_2)),
    ("crc32-xfer", Kind::Crc32(&crc::CRC_32_XFER)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn spelt(name: &str, spelling: Spelling, bytes: &[u8]) -> Vec<u8> {
        let (_, kind) = KINDS.into_iter().find(|(other, _)| *other == name).unwrap();
        let checksum = Checksum { kind, spelling, covers_start: false };
        assert_eq!(checksum.of(b"", bytes).len(), checksum.size());
        checksum.of(b"", bytes)
    }

    #[test]
    fn a_checksum_is_the_one_of_its_manual() {
        use Spelling::{BigEndian, Hex, LittleEndian};
        let table: [(_, _, &[u8], &[u8]); 12] = [
            // ICP DAS, I-7000 manual: $012 has the checksum B7.
            ("sum8", Hex, b"$012", b"B7"),
            ("sum8", BigEndian, &[0xFF, 2], &[1]),
            ("xor8", BigEndian, b"1234", &[4]),
            // Modbus over serial line V1.02, appendix B: all bytes and the LRC add up to nothing.
            ("lrc8", Hex, &[1, 3, 0, 0, 0, 10], b"F2"),
            ("lrc8", BigEndian, b"", &[0]),
            // Modbus: unit 17 reads three registers from 107 on.
            ("crc16-modbus", LittleEndian, &[0x11, 3, 0, 0x6B, 0, 3], &[0x76, 0x87]),
            ("crc16-modbus", BigEndian, b"123456789", &[0x4B, 0x37]),
            ("crc16-xmodem", Hex, b"123456789", b"31C3"),
            ("crc16-ibm-3740", BigEndian, b"123456789", &[0x29, 0xB1]),
            ("crc8-smbus", BigEndian, b"123456789", &[0xF4]),
            ("crc24-openpgp", BigEndian, b"123456789", &[0x21, 0xCF, 0x02]),
            ("crc32-iso-hdlc", LittleEndian, b"123456789", &[0x26, 0x39, 0xF4, 0xCB]),
        ];
        for (name, spelling, bytes, expected) in table {
            assert_eq!(spelt(name, spelling, bytes), expected, "{name}");
        }
    }

    #[test]
    fn the_start_of_a_frame_is_covered_where_it_is_said() {
        let checksum = |covers_start| Checksum { kind: Kind::Xor8, spelling: Spelling::Hex, covers_start };
        assert_eq!(checksum(false).of(b"\x02", b"A"), b"41");
        assert_eq!(checksum(true).of(b"\x02", b"A"), b"43");
        assert!(checksum(true).is_same(b"4b", b"4B") && !checksum(true).is_same(b"4B", b"43"));
    }

    #[test]
    fn every_crc_of_the_list_is_the_one_of_its_name() {
        for (name, kind) in KINDS {
            let check = match kind {
                Kind::Crc8(algorithm) => u32::from(algorithm.check),
                Kind::Crc16(algorithm) => algorithm.check.into(),
                Kind::Crc32(algorithm) => algorithm.check,
                Kind::Xor8 | Kind::Sum8 | Kind::Lrc8 => continue,
            };
            assert_eq!(kind.of(b"123456789"), check, "{name}");
            assert!(name.starts_with(&format!("crc{}-", 8 * kind.size())), "{name}");
        }
    }
}
