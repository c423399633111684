//! The way to the plant: how the gateway reaches its lines.

use std::sync::Arc;
use std::time::Duration;

use fieldbridge::bus::{Lines, Opener, Opening, Port};
use fieldbridge::config::SerialPort;
use fieldbridge::net::Stream;
use tokio::time::sleep;

use super::manners::Manner;
use super::plant::Plant;
use super::request::Protocol;

/// The lines of a plant.
#[derive(Debug)]
pub struct ToPlant(pub Arc<Plant>);

impl Lines for ToPlant {
    fn connect<'a>(&'a self, address: &'a str, _: Duration) -> Opening<'a, Box<dyn Stream>> {
        Box::pin(async move {
            sleep(self.0.world.time(0, 30)).await;
            Ok(Box::new(self.0.open(address, Protocol::Tcp)?.near()) as Box<dyn Stream>)
        })
    }

    fn opener(&self, port: &SerialPort) -> Box<dyn Opener> {
        Box::new(PortOpener { plant: self.0.clone(), path: port.path.display().to_string() })
    }
}

struct PortOpener {
    plant: Arc<Plant>,
    path: String,
}

impl Opener for PortOpener {
    fn open(&mut self) -> Opening<'_, Box<dyn Port>> {
        Box::pin(async move {
            let protocol = match (self.path.ends_with("rtu"), self.plant.manners.have(Manner::Ascii)) {
                (false, _) => Protocol::Text,
                (true, false) => Protocol::Rtu,
                (true, true) => Protocol::Ascii,
            };
            sleep(self.plant.world.time(0, 30)).await;
            Ok(Box::new(self.plant.open(&self.path, protocol)?.near()) as Box<dyn Port>)
        })
    }
}
