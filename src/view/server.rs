//! Listens for those who look, on a thread of its own.
//!
//! Invariants
//! - At most [`CONNECTIONS_MAX`] connections of each kind, each with a deadline; who comes beyond waits in the system's
//!   queue.
//! - All that is answered over HTTP shares one pace, in turns: who looks at the one waits for no crowd at the other.
//! - A port or a socket that can't be had is tried again and again, and the daemon goes on meanwhile.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::system::uname;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{oneshot, watch, Mutex, Semaphore};
use tokio::time::{sleep, timeout, Instant};
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::{host, metrics, page, Source, Views};
use crate::config::{Listen, View};
use crate::handles;
use crate::log::throttle::EACH;
use crate::net::served::{self, Asked, Told};
use crate::net::Stream;
use crate::operate::admin::server as socket;

/// Connections of each kind that are served at the same time: handles are kept for so many.
pub const CONNECTIONS_MAX: usize = handles::LOOKERS_MAX;
/// Longest that one takes from its beginning to its end.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a picture is shown before another is taken.
const FRESH: Duration = Duration::from_secs(1);
/// How long a port that can't be had is left alone.
const RETRY: Duration = Duration::from_secs(2);

/// Listens at what is wanted, and at what is wanted later. Never ends by itself; when it is dropped, so does everything
/// that it began.
pub async fn watch_over(mut wanted: watch::Receiver<Views>, source: Arc<dyn Source>) {
    // Most gateways are not looked at, and need no thread for it. An error means that the daemon ends.
    if wanted.wait_for(|views| *views != Views::default()).await.is_err() {
        return std::future::pending().await;
    }
    let stop = CancellationToken::new();
    let _ends_it = stop.clone().drop_guard();
    let (ends, ended) = oneshot::channel::<()>();
    let run = move || {
        let _ends = ends;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = listen_for_all(wanted, source) => {}
                }
            }),
            Err(error) => tracing::error!(%error, "nobody can look from outside: no runtime"),
        }
    };
    match std::thread::Builder::new().name("views".into()).spawn(run) {
        Ok(_) => {
            let _ = ended.await;
            tracing::error!("nobody can look from outside any more: restart the daemon when it can be spared");
        }
        Err(error) => tracing::error!(%error, "nobody can look from outside: no thread"),
    }
    std::future::pending().await
}

async fn listen_for_all(wanted: watch::Receiver<Views>, source: Arc<dyn Source>) {
    let scraped = Arc::new(Scraped { source: source.clone(), picture: Picture::new() });
    let shown = Arc::new(Shown { source, picture: Picture::new(), policy: page::policy() });
    let (metrics, gate) = (wanted.clone(), Gate::new());
    let (scrape, show) = (move |asked| scraped.clone().answer(asked), move |asked| shown.clone().answer(asked));
    tokio::join!(
        listen_for(metrics, ("metrics", &gate), |views| views.metrics.as_ref(), scrape),
        listen_for(wanted, ("web", &gate), |views| views.web.as_ref(), show),
    );
}

/// Lets connections in, of each kind in turn, at a pace.
struct Gate(Mutex<Pace>);

impl Gate {
    fn new() -> Gate {
        Gate(Mutex::new(Pace::new(Instant::now().into_std())))
    }

    /// Returns when one may be let in. Who waits here is called in the order of coming.
    async fn pass(&self) {
        let mut pace = self.0.lock().await;
        let wait = pace.begin(Instant::now().into_std());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

/// Listens at one kind, wherever that is wanted at present.
async fn listen_for<A: Future<Output = Told> + Send + 'static>(
    mut wanted: watch::Receiver<Views>,
    (what, gate): (&'static str, &Gate),
    of: impl Fn(&Views) -> Option<&View>,
    answer: impl Fn(Asked) -> A + Clone + Send + Sync + 'static,
) {
    let mut present = of(&wanted.borrow_and_update()).cloned();
    loop {
        let listening = async {
            match &present {
                Some(view) => listen((what, gate), view, &answer).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = listening => {}
            changed = wanted.wait_for(|views| of(views) != present.as_ref()) => match changed {
                Ok(views) => present = of(&views).cloned(),
                // The daemon ends.
                Err(_) => return,
            }
        }
    }
}

/// Listens at one place for as long as it is polled.
async fn listen<A: Future<Output = Told> + Send + 'static>(
    (what, gate): (&'static str, &Gate),
    view: &View,
    answer: &(impl Fn(Asked) -> A + Clone + Send + Sync + 'static),
) {
    let mut told = None;
    let listener = loop {
        match Listener::at(what, &view.listen).await {
            Ok(listener) => break listener,
            Err(why) if told.as_ref() == Some(&why) => {}
            Err(why) => {
                tracing::error!(target: EACH, "{what}.listen: {why}; it is tried again, and the rest goes on");
                told = Some(why);
            }
        }
        sleep(RETRY).await;
    };
    tracing::info!(target: EACH, "{what}: listening at {}", listener.place());
    let hosts: Option<Arc<[String]>> = match view.listen {
        Listen::Tcp(_) => Some(view.hosts.clone().into()),
        // No browser gets there by itself, and a proxy before it has names of its own.
        Listen::Unix(_) => None,
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        gate.pass().await;
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "{what}: nobody is let in");
                sleep(RETRY).await;
                continue;
            }
        };
        let (answer, hosts) = (answer.clone(), hosts.clone());
        tokio::spawn(async move {
            let answered = served::serve(stream, move |asked| {
                let refused = refused(&asked, hosts.as_deref());
                let answer = answer.clone();
                async move {
                    match refused {
                        Some(refused) => refused,
                        None => answer(asked).await,
                    }
                }
            });
            // Who takes longer is left.
            let _ = timeout(DEADLINE, answered).await;
            drop(place);
        });
    }
}

/// What is told to a client that does not mean this machine. `hosts`: its further names, where it matters.
fn refused(asked: &Asked, hosts: Option<&[String]>) -> Option<Told> {
    let hosts = hosts?;
    let Some(header) = &asked.host else { return Some(Told::line(400, "say whom you ask, by one Host header")) };
    let machine = uname();
    let machine = machine.nodename().to_string_lossy();
    let why = "this machine is not known by that name; ask by its address, or put the name into hosts";
    (!host::is_ours(header, &machine, hosts)).then(|| Told::line(421, why))
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, RemovedAtTheEnd),
}

/// A socket's file, that nobody listens at when this is gone.
struct RemovedAtTheEnd(std::path::PathBuf);

impl Drop for RemovedAtTheEnd {
    fn drop(&mut self) {
        // One that stays is taken for a dead daemon's.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    async fn at(what: &'static str, listen: &Listen) -> Result<Listener, String> {
        match listen {
            Listen::Tcp(address) => match TcpListener::bind(address).await {
                Ok(listener) => Ok(Listener::Tcp(listener)),
                Err(error) => Err(format!("{address} can't be listened at ({error}); is another program there?")),
            },
            Listen::Unix(path) => {
                let made = match what {
                    "metrics" => socket::bind_as(path, &socket::METRICS),
                    _ => socket::bind_as(path, &socket::WEB),
                };
                made.map(|made| Listener::Unix(made, RemovedAtTheEnd(path.clone()))).map_err(|why| why.to_string())
            }
        }
    }

    /// Where it is, for a person.
    fn place(&self) -> String {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => Listen::Tcp(address).to_string(),
                Err(error) => error.to_string(),
            },
            Listener::Unix(_, file) => Listen::Unix(file.0.clone()).to_string(),
        }
    }

    async fn accept(&self) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Listener::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
            Listener::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// What was rendered last, for those who ask within a second.
struct Picture<T>(Mutex<Option<(Instant, T)>>);

impl<T: Clone> Picture<T> {
    fn new() -> Picture<T> {
        Picture(Mutex::new(None))
    }

    async fn taken(&self, take: impl Future<Output = T>) -> T {
        let mut last = self.0.lock().await;
        match &*last {
            Some((at, picture)) if at.elapsed() < FRESH => picture.clone(),
            _ => {
                let picture = take.await;
                *last = Some((Instant::now(), picture.clone()));
                picture
            }
        }
    }
}

/// The metrics.
struct Scraped {
    source: Arc<dyn Source>,
    picture: Picture<Bytes>,
}

impl Scraped {
    async fn answer(self: Arc<Self>, asked: Asked) -> Told {
        if asked.path != "/metrics" {
            return Told::line(404, "the metrics are at /metrics");
        }
        let take = async {
            let (snapshot, readings) = self.source.figures();
            metrics::render(&snapshot, &readings).into()
        };
        Told { status: 200, kind: metrics::KIND, policy: None, body: self.picture.taken(take).await }
    }
}

/// The page, and the same for a program.
struct Shown {
    source: Arc<dyn Source>,
    picture: Picture<(Bytes, Bytes)>,
    policy: String,
}

impl Shown {
    async fn answer(self: Arc<Self>, asked: Asked) -> Told {
        let is_page = match asked.path.as_str() {
            "/" => true,
            "/api/status" => false,
            _ => return Told::line(404, "the page is at /, and the same for a program at /api/status"),
        };
        let take = async {
            let mut seen = self.source.seen().await;
            seen.machine = uname().nodename().to_string_lossy().into_owned();
            let status = serde_json::to_string(&seen.status).unwrap_or_default() + "\n";
            (Bytes::from(page::render(&seen)), Bytes::from(status))
        };
        let (page, status) = self.picture.taken(take).await;
        match is_page {
            true => Told { status: 200, kind: page::KIND, policy: Some(self.policy.clone()), body: page },
            false => Told { status: 200, kind: "application/json", policy: None, body: status },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_picture_is_taken_once_a_second_however_often_it_is_asked_for() {
        let (picture, taken) = (Picture::new(), std::sync::atomic::AtomicUsize::new(0));
        let take = || async {
            taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Bytes::from_static(b"picture")
        };
        for _ in 0..1000 {
            assert_eq!(picture.taken(take()).await, "picture");
        }
        sleep(FRESH).await;
        picture.taken(take()).await;
        assert_eq!(taken.into_inner(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_at_one_place_is_let_in_at_its_pace_and_holds_up_nobody_at_the_other() {
        let gate = Gate::new();
        let begun = Instant::now();
        let crowd = async {
            for _ in 0..1000 {
                gate.pass().await;
            }
            begun.elapsed()
        };
        let scraper = async {
            let mut longest = Duration::ZERO;
            for _ in 0..4 {
                sleep(Duration::from_secs(1)).await;
                let asked = Instant::now();
                gate.pass().await;
                longest = longest.max(asked.elapsed());
            }
            longest
        };
        let (took, longest) = tokio::join!(crowd, scraper);
        // Timers end with the next millisecond.
        assert!((Duration::from_millis(4_500)..Duration::from_secs(7)).contains(&took), "{took:?}");
        assert!(longest <= Duration::from_millis(15), "{longest:?}");
    }

    #[test]
    fn who_does_not_mean_this_machine_is_told_so_and_at_a_socket_nobody_need_say() {
        let asked = |host: Option<&str>| Asked { path: "/".into(), host: host.map(str::to_owned) };
        let status = |host, hosts: Option<&[String]>| refused(&asked(host), hosts).map(|told| told.status);
        assert_eq!(status(Some("127.0.0.1:1"), Some(&[])), None);
        assert_eq!(status(Some("evil.example"), Some(&[])), Some(421));
        assert_eq!(status(Some("evil.example"), Some(&["evil.example".into()])), None);
        assert_eq!(status(None, Some(&[])), Some(400));
        assert_eq!(status(None, None), None);
    }
}
