//! What is known of a message beside what it asks for.

use crate::time::Timestamp;

/// What a message says of itself beside what it asks for: kept with its row, and told with its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The sender's correlation id.
    pub correlation_id: Option<String>,
    /// The message's number at the hub, where the transport tells it.
    pub sequence_number: Option<u64>,
    /// When the hub took it, where the transport tells it.
    pub enqueued_at: Option<Timestamp>,
    /// How often the hub had delivered it before the delivery that its row was made for, where the transport tells it.
    pub delivery_count: Option<u32>,
}
