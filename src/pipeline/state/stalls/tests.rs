use super::*;

const SECOND: Duration = Duration::from_secs(1);
const FILE: Sequence = Sequence(7);

fn config(on_stall: OnStall) -> Config {
    Config { on_stall, ..Config::default() }
}

/// The calls of a log, and a clock that the test moves.
struct Bench {
    in_flight: InFlight,
    stalls: Stalls,
    config: Config,
    now: Duration,
}

impl Bench {
    fn new(on_stall: OnStall) -> Self {
        let in_flight = InFlight::new();
        let stalls = Stalls::new(&in_flight);
        Bench { in_flight, stalls, config: config(on_stall), now: Duration::ZERO }
    }

    fn begin(&mut self, lane: Lane, operation: Operation) -> Verdict {
        self.in_flight.begin(lane, operation, FILE);
        self.check_after(Duration::ZERO)
    }

    fn check_after(&mut self, time: Duration) -> Verdict {
        self.now += time;
        self.stalls.check(self.now, &self.in_flight, &self.config)
    }
}

#[test]
fn stall_lasts_from_threshold_to_return() {
    let mut bench = Bench::new(OnStall::Report);
    assert_eq!(bench.begin(Lane::Sync, Operation::Flush).event, None);
    assert_eq!(bench.check_after(SECOND / 2).event, None);
    assert_eq!(bench.stalls.condition(), Condition::Good);
    let stall = Stall { operation: Operation::Flush, sequence: FILE, time: SECOND };
    assert_eq!(bench.check_after(SECOND / 2).event, Some(StallEvent::Lasts(stall)));
    assert_eq!(bench.stalls.condition(), Condition::Stalled(stall));
    assert_eq!(bench.stalls.totals(), (1, SECOND));
    bench.in_flight.end(Lane::Sync);
    let ended = bench.check_after(SECOND / 4);
    assert!(matches!(ended.event, Some(StallEvent::Ended(_))), "{ended:?}");
    assert_eq!(bench.stalls.totals(), (1, SECOND + SECOND / 4));
    assert_eq!(bench.stalls.condition(), Condition::Slow);
    bench.check_after(CALM_AFTER - Duration::from_nanos(1));
    assert_eq!(bench.stalls.condition(), Condition::Slow);
    let calm = bench.check_after(Duration::from_nanos(1));
    assert_eq!((bench.stalls.condition(), calm.is_changed), (Condition::Good, true));
    assert_eq!(calm.next, None, "nothing is left to watch");
}

#[test]
fn lasting_stall_is_reported_at_growing_intervals() {
    let mut bench = Bench::new(OnStall::Report);
    bench.begin(Lane::Write, Operation::Write);
    let mut reported = Vec::new();
    for _ in 0..1200 {
        if let Some(StallEvent::Lasts(stall)) = bench.check_after(SECOND / 4).event {
            reported.push(stall.time.as_secs());
        }
    }
    assert_eq!(reported, [1, 2, 4, 8, 16, 32, 64, 124, 184, 244]);
    assert_eq!(bench.stalls.totals().0, 1);
}

#[test]
fn calls_that_return_in_time_are_no_stall() {
    let mut bench = Bench::new(OnStall::FailWaiters { after: SECOND });
    for _ in 0..100 {
        bench.begin(Lane::Write, Operation::Write);
        let verdict = bench.check_after(SECOND - Duration::from_millis(1));
        assert_eq!((verdict.event, verdict.fails_more), (None, false));
        bench.in_flight.end(Lane::Write);
    }
    // A preparation of many calls, each of which returns.
    bench.begin(Lane::Prepare, Operation::Prepare);
    bench.begin(Lane::Write, Operation::Prepare);
    for _ in 0..100 {
        assert_eq!(bench.check_after(SECOND / 2).event, None);
        bench.in_flight.progressed(Lane::Prepare);
    }
    assert_eq!(bench.stalls.condition(), Condition::Good);
    bench.check_after(SECOND / 2);
    assert!(bench.check_after(SECOND).fails_more, "the lane that waits for it stalls with it");
    assert!(bench.stalls.fails_written());
}

#[test]
fn only_waiters_of_the_stalled_call_fail() {
    let fails = |lane, operation| {
        let mut bench = Bench::new(OnStall::FailWaiters { after: 5 * SECOND });
        bench.begin(lane, operation);
        assert!(!bench.check_after(4 * SECOND).fails_more);
        let is_new = bench.check_after(SECOND).fails_more;
        assert!(!bench.check_after(SECOND).fails_more, "it is new once");
        let stalls = &bench.stalls;
        let failing =
            (stalls.fails_written(), stalls.fails_synced(), stalls.fails_room(false).is_some());
        assert_eq!(is_new, failing != (false, false, false));
        bench.in_flight.end(lane);
        stalls.recovered(lane);
        assert!(!stalls.fails_written() && !stalls.fails_synced());
        assert!(stalls.fails_room(false).is_none());
        failing
    };
    assert_eq!(fails(Lane::Write, Operation::Write), (true, true, true));
    assert_eq!(fails(Lane::Write, Operation::Rotate), (true, true, true));
    assert_eq!(fails(Lane::Sync, Operation::Flush), (false, true, false));
    assert_eq!(fails(Lane::Prepare, Operation::Prepare), (false, false, true));
    assert_eq!(fails(Lane::Remove, Operation::Remove), (false, false, false));
    assert_eq!(fails(Lane::Close, Operation::Close), (false, false, false));
}

#[test]
fn log_is_stopped_once() {
    let mut bench = Bench::new(OnStall::Stop { after: 5 * SECOND });
    bench.begin(Lane::Remove, Operation::Remove);
    assert_eq!(bench.check_after(10 * SECOND).stops, None, "no append waits for a removal");
    bench.begin(Lane::Prepare, Operation::Prepare);
    assert_eq!(bench.check_after(4 * SECOND).stops, None);
    let stall = Stall { operation: Operation::Prepare, sequence: FILE, time: 5 * SECOND };
    assert_eq!(bench.check_after(SECOND).stops, Some(stall));
    assert_eq!(bench.check_after(SECOND).stops, None);
}

#[test]
fn quiet_log_is_watched_for_a_second() {
    let mut bench = Bench::new(OnStall::Report);
    bench.now = 100 * SECOND;
    bench.in_flight.begin(Lane::Write, Operation::Write, FILE);
    bench.in_flight.end(Lane::Write);
    assert!(bench.stalls.is_active(&bench.in_flight), "it was in flight since the last check");
    assert!(bench.check_after(Duration::ZERO).next.is_some());
    assert!(bench.check_after(SECOND - Duration::from_nanos(1)).next.is_some());
    assert_eq!(bench.check_after(Duration::from_nanos(1)).next, None);
    assert!(!bench.stalls.is_active(&bench.in_flight));
}
