// A stable parallel sort of records by integer keys.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "parallel.h"

namespace equilidar {

struct Record {
  uint64_t key, value;
};

// Number of bits that hold 0 .. count - 1.
inline int bits_of(uint64_t count) {
  int bits = 0;
  for (; bits < 64 && (count - 1) >> bits != 0; ++bits) {}
  return bits;
}

// Sort by keys below 2^bits; least significant digit first. The result does not depend on the number of threads, for
// equal keys stay in order.
inline void radix_sort(std::unique_ptr<Record[]>& records, int64_t num, int bits) {
  constexpr int64_t kGrain = 16384;
  constexpr int kMaxDigit = 11;
  if (num < 2 || bits == 0) return;
  const int passes = (bits + kMaxDigit - 1) / kMaxDigit, digit = (bits + passes - 1) / passes;
  const int64_t buckets = int64_t(1) << digit, chunks = (num + kGrain - 1) / kGrain;
  std::unique_ptr<Record[]> other(new Record[num]);
  std::vector<int64_t> starts(chunks * buckets);
  for (int shift = 0; shift < bits; shift += digit) {
    const Record* const from = records.get();
    Record* const to = other.get();
    const auto bucket = [&](int64_t i) { return (from[i].key >> shift) & (buckets - 1); };
    std::fill(starts.begin(), starts.end(), 0);
    parallel_chunks(num, kGrain, [&](int64_t begin, int64_t end) {
      int64_t* const counts = starts.data() + begin / kGrain * buckets;
      for (int64_t i = begin; i < end; ++i) ++counts[bucket(i)];
    });
    int64_t total = 0;
    for (int64_t b = 0; b < buckets; ++b) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        total += std::exchange(starts[chunk * buckets + b], total);
      }
    }
    parallel_chunks(num, kGrain, [&](int64_t begin, int64_t end) {
      int64_t* const next = starts.data() + begin / kGrain * buckets;
      for (int64_t i = begin; i < end; ++i) to[next[bucket(i)]++] = from[i];
    });
    std::swap(records, other);
  }
}

}  // namespace equilidar
