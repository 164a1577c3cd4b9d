// A stable parallel sort of records by integer keys.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "parallel.h"

namespace equilidar {

struct Record {
  uint64_t key, value;
};

inline uint64_t key_from(const Record& record, int bit) { return record.key >> bit; }

// A record in one word, its key in the high bits: the less is moved, the faster.
template <typename Word>
uint64_t key_from(const Word& word, int bit) {
  return static_cast<uint64_t>(word >> bit);
}

// The two steps of a pass. Arguments by value stay in registers, whatever is written.
template <typename Item>
void count_digits(const Item* from, int64_t begin, int64_t end, int bit, uint64_t mask, uint32_t* counts) {
  for (int64_t i = begin; i < end; ++i) ++counts[key_from(from[i], bit) & mask];
}
template <typename Item>
void move_by_digits(const Item* from, int64_t begin, int64_t end, int bit, uint64_t mask, uint32_t* next, Item* to) {
  for (int64_t i = begin; i < end; ++i) to[next[key_from(from[i], bit) & mask]++] = from[i];
}

// Sort fewer than 2^32 records by bits [low, high) of their keys, those above being zero; least significant digit
// first. The result does not depend on the number of threads, for equal keys stay in order.
template <typename Item>
void radix_sort(std::unique_ptr<Item[]>& records, int64_t num, int low, int high) {
  constexpr int64_t kGrain = 32768;  // threads pay from about 50 microseconds on
  constexpr int kMaxDigit = 11;
  if (num < 2 || low == high) return;
  const int passes = (high - low + kMaxDigit - 1) / kMaxDigit, digit = (high - low + passes - 1) / passes;
  const int64_t buckets = int64_t(1) << digit, chunks = (num + kGrain - 1) / kGrain;
  std::unique_ptr<Item[]> other(new Item[num]);
  std::vector<uint32_t> starts(chunks * buckets);
  for (int bit = low; bit < high; bit += digit) {
    const Item* const from = records.get();
    Item* const to = other.get();
    const uint64_t mask = buckets - 1;
    std::fill(starts.begin(), starts.end(), 0);
    uint32_t* const first = starts.data();
    parallel_chunks(num, kGrain, [&](int64_t begin, int64_t end) {
      count_digits(from, begin, end, bit, mask, first + begin / kGrain * buckets);
    });
    uint32_t total = 0;
    for (int64_t bucket = 0; bucket < buckets; ++bucket) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        total += std::exchange(starts[chunk * buckets + bucket], total);
      }
    }
    parallel_chunks(num, kGrain, [&](int64_t begin, int64_t end) {
      move_by_digits(from, begin, end, bit, mask, first + begin / kGrain * buckets, to);
    });
    std::swap(records, other);
  }
}

}  // namespace equilidar
