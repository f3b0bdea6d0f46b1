//! Every interleaving of two threads on one bucket: `RUSTFLAGS="--cfg loom" cargo test -p flash-admission --test loom`.
#![cfg(loom)]

use flash_admission::{HashKey, Limiter, Rate};
use loom::sync::Arc;
use loom::thread;

#[test]
fn one_credit_is_spent_once() {
    loom::model(|| {
        let limiter = Arc::new(Limiter::new(1, HashKey(0, 0)));
        let rate = Rate::per_second(1, 1);
        let other = {
            let limiter = Arc::clone(&limiter);
            thread::spawn(move || limiter.check(7, rate, 0).is_ok())
        };
        let mine = limiter.check(7, rate, 0).is_ok();
        assert!(mine ^ other.join().unwrap());
    });
}

#[test]
fn strangers_in_one_bucket_do_not_refuse_each_other() {
    loom::model(|| {
        let limiter = Arc::new(Limiter::new(1, HashKey(0, 0)));
        let rate = Rate::per_second(1, 1);
        let threads: Vec<_> = [7, 8]
            .into_iter()
            .map(|key| {
                let limiter = Arc::clone(&limiter);
                thread::spawn(move || limiter.check(key, rate, 0))
            })
            .collect();
        assert_eq!(limiter.check(9, rate, 0), Ok(()));
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Ok(()));
        }
    });
}
