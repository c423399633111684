//! What a simulation puts in the place of the clock and of the end of the process (feature `proof`).
//!
//! A thread that simulates says so with [`simulate`]. From then on wall time is what the simulation says, and each time
//! that a task of the gateway is about to run the simulation is asked whether the process is still alive: one that has
//! crashed does nothing any more, wherever its tasks stood.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{sleep, Sleep};

use super::stamp::Timestamp;

/// A simulation, as the gateway sees it.
pub trait Simulation {
    /// Wall time.
    fn now(&self) -> Timestamp;
    /// Whether the system calls its clock synchronised.
    fn synchronised(&self) -> bool;
    /// A task is about to run. `false`: the process has crashed.
    fn step(&self) -> bool;
    /// How long the system lets a task wait that is about to run, which is not done to it twice in a row. `None`: it
    /// runs at once.
    fn delay(&self) -> Option<Duration>;
}

thread_local! {
    static GRAVES: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
    static SIMULATION: RefCell<Option<Rc<dyn Simulation>>> = const { RefCell::new(None) };
}

/// From now on this thread runs a simulation, or none any more.
pub fn simulate(simulation: Option<Rc<dyn Simulation>>) {
    SIMULATION.with(|here| *here.borrow_mut() = simulation);
}

fn simulation() -> Option<Rc<dyn Simulation>> {
    SIMULATION.with(|here| here.borrow().clone())
}

/// Wall time, if it is simulated.
pub fn now() -> Option<Timestamp> {
    simulation().map(|simulation| simulation.now())
}

/// Whether the system calls its clock synchronised, if that is simulated.
pub fn synchronised() -> Option<bool> {
    simulation().map(|simulation| simulation.synchronised())
}

/// Keeps what a process leaves as it is when it ends, until [`clear_graves`]. Without a simulation it is given back.
pub fn bury<T: Any>(remains: T) -> Option<T> {
    if simulation().is_none() {
        return Some(remains);
    }
    GRAVES.with(|graves| graves.borrow_mut().push(Box::new(remains)));
    None
}

/// Drops what processes have left. They must have ended, so that it has no effect.
pub fn clear_graves() {
    let graves = GRAVES.with(|graves| graves.take());
    drop(graves);
}

/// A task that ends with its simulated process, and waits when the system lets others go first.
pub struct Mortal<F> {
    task: Pin<Box<F>>,
    /// What it waits for.
    turn: Option<Pin<Box<Sleep>>>,
}

impl<F> Mortal<F> {
    /// Of a task.
    pub fn new(task: F) -> Self {
        Mortal { task: Box::pin(task), turn: None }
    }
}

impl<F: Future> Future for Mortal<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(simulation) = simulation() else { return self.task.as_mut().poll(context) };
        if !simulation.step() {
            return Poll::Pending;
        }
        if self.turn.is_none() {
            self.turn = simulation.delay().map(|delay| Box::pin(sleep(delay)));
        }
        if self.turn.as_mut().is_some_and(|turn| turn.as_mut().poll(context).is_pending()) {
            return Poll::Pending;
        }
        self.turn = None;
        self.task.as_mut().poll(context)
    }
}
