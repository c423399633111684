//! Points in a Modbus device's tables, and the codec between registers and engineering values.

/// A place in a Modbus table and how to read its registers.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Which table.
    pub table: Table,
    /// Protocol address, from 0.
    pub address: u16,
    /// How the raw value is encoded.
    pub kind: DataType,
    /// Number of array elements; for `string`, number of registers. `None` is a single value.
    pub count: Option<u16>,
    /// Which register of a value comes first.
    pub word_order: Order,
    /// Which byte of a register comes first.
    pub byte_order: Order,
    /// engineering value = raw × scale + offset
    pub scale: f64,
    /// engineering value = raw × scale + offset
    pub offset: f64,
}

/// The four Modbus tables (Modbus Application Protocol V1.1b3, 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Read-write bits.
    Coil,
    /// Read-only bits.
    Discrete,
    /// Read-write registers.
    Holding,
    /// Read-only registers.
    Input,
}

/// How a value lies in registers or bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// One bit; in a register, 0 or not 0.
    Bool,
    /// 16 bits, unsigned.
    U16,
    /// 16 bits, two's complement.
    I16,
    /// 32 bits, unsigned.
    U32,
    /// 32 bits, two's complement.
    I32,
    /// 64 bits, unsigned.
    U64,
    /// 64 bits, two's complement.
    I64,
    /// IEEE 754 single.
    F32,
    /// IEEE 754 double.
    F64,
    /// Text, two bytes a register, padded with zero bytes.
    String,
}

/// Most or least significant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Most significant first, as in the Modbus specification.
    Big,
    /// Least significant first.
    Little,
}
