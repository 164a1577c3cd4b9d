// Stable sort of 64-bit keys with their rows on the CPU, in parallel, the same with any number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "parallel.h"
#include "workspace.h"

namespace equilidar {

struct KeyedRow {
  uint64_t key;
  uint32_t row;
};

// Sort `entries` by key, least significant digit first; digits that all keys share are skipped. Returns where the result
// lies: `entries` or scratch.
inline KeyedRow* radix_sort(KeyedRow* entries, int64_t num, Workspace& workspace) {
  constexpr int kBits = 11, kDigits = 1 << kBits;
  constexpr int64_t kChunk = 1 << 15;
  uint64_t all = ~0ULL, any = 0;
  for (int64_t i = 0; i < num; ++i) {
    all &= entries[i].key;
    any |= entries[i].key;
  }
  KeyedRow* from = entries;
  KeyedRow* to = workspace.array<KeyedRow>(num);
  const int64_t chunks = (num + kChunk - 1) / kChunk;
  std::vector<int64_t> starts(static_cast<std::size_t>(chunks * kDigits));
  for (int shift = 0; shift < 64; shift += kBits) {
    const auto digit = [shift](const KeyedRow& entry) { return (entry.key >> shift) & (kDigits - 1); };
    if (((any ^ all) >> shift & (kDigits - 1)) == 0) continue;
    std::fill(starts.begin(), starts.end(), 0);
    parallel_chunks(num, kChunk, [&](int64_t begin, int64_t end) {
      int64_t* const count = starts.data() + begin / kChunk * kDigits;
      for (int64_t i = begin; i < end; ++i) ++count[digit(from[i])];
    });
    int64_t total = 0;
    for (int64_t value = 0; value < kDigits; ++value) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        total += std::exchange(starts[chunk * kDigits + value], total);
      }
    }
    parallel_chunks(num, kChunk, [&](int64_t begin, int64_t end) {
      int64_t* const next = starts.data() + begin / kChunk * kDigits;
      for (int64_t i = begin; i < end; ++i) to[next[digit(from[i])]++] = from[i];
    });
    std::swap(from, to);
  }
  return from;
}

}  // namespace equilidar
