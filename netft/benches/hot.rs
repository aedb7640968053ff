//! Duration of the steps of the packet path: seal, open, codec, lookup, segment, coalesce.
//!
//!     cargo bench -p netft --bench hot [-- NAME]

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod cases;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn hot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot");
    for (name, prepare, bytes) in cases::CASES {
        if bytes > 0 {
            group.throughput(Throughput::Bytes(bytes as u64));
        } else {
            group.throughput(Throughput::Elements(1));
        }
        let mut case = prepare();
        let mut number = 0;
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                case(number);
                number += 1;
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hot);
criterion_main!(benches);
