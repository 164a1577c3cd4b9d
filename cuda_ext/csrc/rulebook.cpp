#include "rulebook.h"

#include <algorithm>

#include "parallel.h"

namespace equilidar {
namespace {

constexpr int64_t kRows = 2048;

// Keys in ascending order and the rows that they are of; `order` stays empty where coords come sorted.
struct SortedKeys {
  std::unique_ptr<int64_t[]> keys;
  std::unique_ptr<int32_t[]> order;
};

SortedKeys sorted_keys(const int32_t* coords, int64_t num, const Cells& shape) {
  SortedKeys sorted{std::unique_ptr<int64_t[]>(new int64_t[num]), nullptr};
  parallel_for(num, kRows, [&](int64_t i) { sorted.keys[i] = cell_key(coords + 4 * i, shape); });
  if (std::is_sorted(sorted.keys.get(), sorted.keys.get() + num)) return sorted;
  std::unique_ptr<Record[]> records(new Record[num]);
  parallel_for(num, kRows, [&](int64_t i) { records[i] = {uint64_t(sorted.keys[i]), uint64_t(i)}; });
  radix_sort(records, num, bits_of(uint64_t(batch_size_of(coords, num)) * shape.volume()));
  sorted.order.reset(new int32_t[num]);
  parallel_for(num, kRows, [&](int64_t i) {
    sorted.keys[i] = int64_t(records[i].key);
    sorted.order[i] = int32_t(records[i].value);
  });
  return sorted;
}

}  // namespace

int64_t batch_size_of(const int32_t* coords, int64_t num) {
  int32_t last = -1;
  for (int64_t i = 0; i < num; ++i) last = max_of(last, coords[4 * i]);
  return last + 1;
}

void submanifold_table_cpu(const int32_t* coords, int64_t num, Cells shape, Cells kernel, int32_t* table) {
  const Cells wide = with_margin(shape, kernel);
  const SortedKeys sorted = sorted_keys(coords, num, wide);
  const int64_t* const keys = sorted.keys.get();
  const int32_t* const order = sorted.order.get();
  parallel_chunks(num, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t line = 0; line < kernel.z * kernel.y; ++line) {
      const int64_t dz = line / kernel.y - kernel.z / 2, dy = line % kernel.y - kernel.y / 2;
      const int64_t move = (dz * wide.y + dy) * wide.x;
      // Cells and their neighbours ascend together: one walk along the keys finds those of all cells.
      int64_t position = first_at_least(keys, 0, num, keys[begin] + move - kernel.x / 2);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t base = keys[i] + move;
        while (position < num && keys[position] < base - kernel.x / 2) ++position;
        write_line(keys, order, num, base, kernel.x, position, table + line * kernel.x * num,
                   order == nullptr ? i : order[i]);
      }
    }
  });
}

void count_pairs_cpu(const int32_t* table, int64_t num_offsets, int64_t num_out, int64_t center, int64_t* starts) {
  const int64_t blocks = pair_blocks(num_out);
  parallel_for(num_offsets * blocks, 8, [&](int64_t task) {
    const int64_t k = task / blocks, begin = task % blocks * kPairBlock, end = min_of(begin + kPairBlock, num_out);
    int32_t count = 0;
    if (k != center) {
      for (int64_t row = begin; row < end; ++row) count += table[k * num_out + row] >= 0;
    }
    starts[task] = count;
  });
  int64_t total = 0;
  for (int64_t task = 0; task <= num_offsets * blocks; ++task) {
    const int64_t count = task < num_offsets * blocks ? starts[task] : 0;
    starts[task] = total;
    total += count;
  }
}

void list_pairs_cpu(const int32_t* table, int64_t num_offsets, int64_t num_out, int64_t center, const int64_t* starts,
                    int32_t* in_rows, int32_t* out_rows) {
  const int64_t blocks = pair_blocks(num_out);
  parallel_for(num_offsets * blocks, 8, [&](int64_t task) {
    const int64_t k = task / blocks, begin = task % blocks * kPairBlock, end = min_of(begin + kPairBlock, num_out);
    if (k == center) return;
    int64_t p = starts[task];
    const int64_t stop = starts[task + 1];
    // Every row is written where the next pair goes, and stays if it is one: no branch to mispredict.
    for (int64_t row = begin; row < end && p < stop; ++row) {
      const int32_t source = table[k * num_out + row];
      in_rows[p] = source;
      out_rows[p] = static_cast<int32_t>(row);
      p += source >= 0;
    }
  });
}

StridedPairs strided_pairs_cpu(const int32_t* coords, int64_t num, int64_t batch_size, const Geometry& geometry) {
  const int64_t taps = geometry.taps().volume(), chunks = (num + kRows - 1) / kRows;
  std::vector<int64_t> starts(chunks + 1);
  parallel_chunks(num, kRows, [&](int64_t begin, int64_t end) {
    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t tap = 0; tap < taps; ++tap) count += reader_of(coords + 4 * i, tap, geometry).exists;
    }
    starts[begin / kRows + 1] = count;
  });
  for (int64_t chunk = 0; chunk < chunks; ++chunk) starts[chunk + 1] += starts[chunk];
  StridedPairs pairs{nullptr, std::vector<int64_t>(geometry.kernel.volume()), starts[chunks], 0};
  pairs.records.reset(new Record[pairs.size]);
  parallel_chunks(num, kRows, [&](int64_t begin, int64_t end) {
    Record* next = pairs.records.get() + starts[begin / kRows];
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        const Reader reader = reader_of(coords + 4 * i, tap, geometry);
        if (reader.exists) {
          *next++ = {uint64_t(reader.key), uint64_t(i) << StridedPairs::kOffsetBits | uint64_t(reader.offset)};
        }
      }
    }
  });
  radix_sort(pairs.records, pairs.size, bits_of(uint64_t(batch_size) * geometry.out_shape.volume()));
  for (int64_t p = 0; p < pairs.size; ++p) {
    const Record& record = pairs.records[p];
    pairs.num_out += p == 0 || record.key != pairs.records[p - 1].key;
    ++pairs.counts[record.value & ((1 << StridedPairs::kOffsetBits) - 1)];
  }
  return pairs;
}

void list_strided_pairs_cpu(const StridedPairs& pairs, const Geometry& geometry, int32_t* in_rows, int32_t* out_rows,
                            int32_t* out_coords) {
  std::vector<int64_t> next(pairs.counts.size());
  for (size_t k = 1; k < next.size(); ++k) next[k] = next[k - 1] + pairs.counts[k - 1];
  int32_t row = -1;
  for (int64_t p = 0; p < pairs.size; ++p) {
    const Record& record = pairs.records[p];
    if (p == 0 || record.key != pairs.records[p - 1].key) {
      ++row;
      cell_of_key(int64_t(record.key), geometry.out_shape, out_coords + 4 * row);
    }
    const int64_t to = next[record.value & ((1 << StridedPairs::kOffsetBits) - 1)]++;
    in_rows[to] = int32_t(record.value >> StridedPairs::kOffsetBits);
    out_rows[to] = row;
  }
}

}  // namespace equilidar
