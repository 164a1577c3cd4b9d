#include "rulebook.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <tuple>
#include <utility>

#include "parallel.h"

namespace equilidar {
namespace {

constexpr int64_t kRows = 2048;   // cells per task
constexpr int64_t kGroups = 256;  // output lines per task

}  // namespace

SortedCells sort_cells(const int32_t* coords, int64_t num, const Cells& shape) {
  SortedCells cells{std::unique_ptr<int64_t[]>(new int64_t[num + 1]), nullptr, num};
  int64_t* const keys = cells.keys.get();
  keys[num] = std::numeric_limits<int64_t>::max();
  parallel_for(num, kRows, [&](int64_t i) { keys[i] = cell_key(coords + 4 * i, shape); });
  if (std::is_sorted(keys, keys + num)) return cells;
  std::unique_ptr<Record[]> records(new Record[num]);
  parallel_for(num, kRows, [&](int64_t i) { records[i] = {uint64_t(keys[i]), uint64_t(i)}; });
  radix_sort(records, num, 0, bits_of(uint64_t(*std::max_element(keys, keys + num)) + 1));
  cells.order.reset(new int32_t[num]);
  parallel_for(num, kRows, [&](int64_t i) {
    keys[i] = int64_t(records[i].key);
    cells.order[i] = int32_t(records[i].value);
  });
  return cells;
}

// The relation is symmetric: if i reads j at offset k, j reads i at the mirrored offset, so only the later half of the
// offsets is searched. Cells and their neighbours in one line ascend together, so one walk along the keys finds all.
SubmanifoldPairs::SubmanifoldPairs(const int32_t* coords, int64_t num, const Cells& shape, const Cells& kernel)
    : counts(kernel.volume()), chunks_((num + kRows - 1) / kRows) {
  const Cells wide = with_margin(shape, kernel);
  cells_ = sort_cells(coords, num, wide);
  for (int64_t line = kernel.z / 2 * kernel.y + kernel.y / 2; line < kernel.z * kernel.y; ++line) {
    const int64_t dz = line / kernel.y - kernel.z / 2, dy = line % kernel.y - kernel.y / 2;
    // Of a cell's own line, the cells behind it.
    const int64_t first_dx = dz == 0 && dy == 0 ? 1 : -(kernel.x / 2), size = kernel.x / 2 - first_dx + 1;
    if (size > 0) {
      lines_.push_back({(dz * wide.y + dy) * wide.x, first_dx, size, line * kernel.x + first_dx + kernel.x / 2});
    }
  }
  starts_.resize(kernel.volume() * chunks_);
  parallel_for(int64_t(lines_.size()) * chunks_, 1, [&](int64_t task) {
    const Line& line = lines_[task / chunks_];
    const int64_t chunk = task % chunks_;
    std::vector<int64_t> found(line.size);
    walk(line, chunk * kRows, min_of((chunk + 1) * kRows, num),
         [&](int64_t, int64_t, int64_t tap, bool is_found) { found[tap] += is_found; });
    for (int64_t tap = 0; tap < line.size; ++tap) starts_[(line.offset + tap) * chunks_ + chunk] = found[tap];
  });
  for (int64_t k = kernel.volume() / 2 + 1; k < kernel.volume(); ++k) {
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      counts[k] += std::exchange(starts_[k * chunks_ + chunk], counts[k]);
    }
    counts[kernel.volume() - 1 - k] = counts[k];
  }
}

template <typename Emit>
void SubmanifoldPairs::walk(const Line& line, int64_t begin, int64_t end, const Emit& emit) const {
  const int64_t* const keys = cells_.keys.get();
  const int64_t step = line.move + line.first_dx;
  int64_t position = first_at_least(keys, 0, cells_.num, keys[begin] + step);
  const auto along = [&](int64_t size) __attribute__((always_inline)) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t base = keys[i] + step;
      while (keys[position] < base) ++position;
      int64_t at = position;
      for (int64_t tap = 0; tap < size; ++tap) {
        const bool is_found = keys[at] == base + tap;
        emit(i, at, tap, is_found);
        at += is_found;
      }
    }
  };
  // A constant lets the compiler unroll the loop over taps.
  if (line.size == 3) {
    along(3);
  } else {
    along(line.size);
  }
}

void SubmanifoldPairs::list(int32_t* in_rows, int32_t* out_rows) const {
  const int64_t num_offsets = int64_t(counts.size());
  std::vector<int64_t> first(num_offsets + 1);
  for (int64_t k = 0; k < num_offsets; ++k) first[k + 1] = first[k] + counts[k];
  parallel_for(int64_t(lines_.size()) * chunks_, 1, [&](int64_t task) {
    const Line& line = lines_[task / chunks_];
    const int64_t chunk = task % chunks_;
    // Each cell is written where the next pair goes, and stays if it is one: no branch to mispredict.
    std::unique_ptr<int32_t[]> ahead(new int32_t[line.size * kRows]), behind(new int32_t[line.size * kRows]);
    std::vector<int32_t> found(line.size);
    walk(line, chunk * kRows, min_of((chunk + 1) * kRows, cells_.num),
         [&](int64_t i, int64_t at, int64_t tap, bool is_found) {
           const int64_t p = tap * kRows + found[tap];
           ahead[p] = int32_t(at);
           behind[p] = int32_t(i);
           found[tap] += is_found;
         });
    for (int64_t tap = 0; tap < line.size; ++tap) {
      const int64_t k = line.offset + tap, start = starts_[k * chunks_ + chunk];
      const int64_t to = first[k] + start, mirrored = first[num_offsets - 1 - k] + start;
      std::copy_n(ahead.get() + tap * kRows, found[tap], in_rows + to);
      std::copy_n(behind.get() + tap * kRows, found[tap], out_rows + to);
      std::copy_n(behind.get() + tap * kRows, found[tap], in_rows + mirrored);
      std::copy_n(ahead.get() + tap * kRows, found[tap], out_rows + mirrored);
    }
  });
  if (!cells_.order) return;
  // Ranks become rows, and pairs of one offset go by the output row again.
  parallel_for(num_offsets, 1, [&](int64_t k) {
    std::vector<std::pair<int32_t, int32_t>> pairs(counts[k]);
    for (int64_t p = 0; p < counts[k]; ++p) {
      pairs[p] = {cells_.order[out_rows[first[k] + p]], cells_.order[in_rows[first[k] + p]]};
    }
    std::sort(pairs.begin(), pairs.end());
    for (int64_t p = 0; p < counts[k]; ++p) std::tie(out_rows[first[k] + p], in_rows[first[k] + p]) = pairs[p];
  });
}

// Occupied cells of one output line, and their ranks.
struct StridedPairs::Bits {
  std::vector<uint64_t> words;
  std::vector<int32_t> ranks;  // cells before each word
  int64_t low = 0, high = 0;   // words in use
  int64_t count = 0;

  explicit Bits(int64_t cells) : words((cells + 63) / 64), ranks(words.size()) {}

  void clear() {
    if (low < high) std::fill(words.begin() + low, words.begin() + high, 0);
    low = int64_t(words.size());
    high = 0;
  }
  void set(int64_t cell) {
    const int64_t word = cell / 64;
    words[word] |= uint64_t(1) << cell % 64;
    low = min_of(low, word);
    high = max_of(high, word + 1);
  }
  void rank() {
    count = 0;
    for (int64_t word = low; word < high; ++word) {
      ranks[word] = int32_t(count);
      count += std::popcount(words[word]);
    }
  }
  template <typename Visit>
  void for_each(const Visit& visit) const {
    for (int64_t word = low; word < high; ++word) {
      for (uint64_t rest = words[word]; rest != 0; rest &= rest - 1) visit(word * 64 + std::countr_zero(rest));
    }
  }
  int64_t rank_of(int64_t cell) const {
    return ranks[cell / 64] + std::popcount(words[cell / 64] & ((uint64_t(1) << cell % 64) - 1));
  }
};

// Cells of one output line are read from a few input lines: lines are sorted, of which there are far fewer than cells,
// and cells of a line are marked in a bitmap, which sorts them and says their ranks.
StridedPairs::StridedPairs(const int32_t* coords, int64_t num, const Geometry& geometry)
    : counts(geometry.kernel.volume()),
      num_out(0),
      cells_(sort_cells(coords, num, geometry.in_shape)),
      last_x_(new int32_t[num]),
      first_dx_(new int32_t[num]),
      geometry_(geometry) {
  const Geometry& g = geometry_;
  const int32_t* const order = cells_.order.get();
  int64_t last = -1;
  for (int64_t i = 0; i < num; ++i) {
    const int32_t* const row = coords + 4 * (order == nullptr ? i : order[i]);
    last_x_[i] = int32_t((row[3] + g.padding.x) / g.stride.x);
    first_dx_[i] = int32_t(row[3] + g.padding.x - last_x_[i] * g.stride.x);
    const int64_t line = cells_.keys[i] - row[3];
    if (line != last) lines_.push_back({row[0], row[1], row[2], i, i});
    ++lines_.back().end;
    last = line;
  }
  const Cells taps = g.taps();
  const int64_t num_lines = int64_t(lines_.size());
  readers_.reset(new Record[num_lines * taps.z * taps.y]);
  int64_t num_readers = 0;
  for (int64_t i = 0; i < num_lines; ++i) {
    const Line& line = lines_[i];
    for (int64_t tap = 0; tap < taps.z * taps.y; ++tap) {
      int64_t z, y, dz, dy;
      if (read_along(line.z, tap / taps.y, g.kernel.z, g.stride.z, g.padding.z, g.out_shape.z, z, dz) &&
          read_along(line.y, tap % taps.y, g.kernel.y, g.stride.y, g.padding.y, g.out_shape.y, y, dy)) {
        readers_[num_readers++] = {uint64_t((line.batch * g.out_shape.z + z) * g.out_shape.y + y),
                                   uint64_t(i) << kOffsetBits | uint64_t(dz * g.kernel.y + dy)};
      }
    }
  }
  const int64_t batch_size = lines_.empty() ? 0 : lines_.back().batch + 1;
  if (num_readers > 0) radix_sort(readers_, num_readers, 0, bits_of(uint64_t(batch_size) * g.out_shape.z * g.out_shape.y));
  for (int64_t r = 0; r < num_readers; ++r) {
    if (r == 0 || readers_[r].key != readers_[r - 1].key) groups_.push_back(r);
  }
  const int64_t num_groups = int64_t(groups_.size()), num_offsets = g.kernel.volume();
  groups_.push_back(num_readers);

  chunks_ = (num_groups + kGroups - 1) / kGroups;
  starts_.resize(chunks_ * num_offsets);
  out_starts_.resize(chunks_ + 1);
  parallel_chunks(num_groups, kGroups, [&](int64_t begin, int64_t end) {
    const int64_t chunk = begin / kGroups;
    int64_t* const found = starts_.data() + chunk * num_offsets;
    Bits bits(g.out_shape.x);
    for (int64_t group = begin; group < end; ++group) {
      bits.clear();
      for_each_reader(group, [&](int64_t, int64_t x, int64_t offset) {
        bits.set(x);
        ++found[offset];
      });
      bits.rank();
      out_starts_[chunk + 1] += bits.count;
    }
  });
  for (int64_t chunk = 0; chunk < chunks_; ++chunk) out_starts_[chunk + 1] += out_starts_[chunk];
  num_out = out_starts_[chunks_];
  int64_t total = 0;
  for (int64_t k = 0; k < num_offsets; ++k) {
    const int64_t before = total;
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) total += std::exchange(starts_[chunk * num_offsets + k], total);
    counts[k] = total - before;
  }
}

template <typename Visit>
void StridedPairs::for_each_reader(int64_t group, const Visit& visit) const {
  const Geometry& g = geometry_;
  for (int64_t r = groups_[group]; r < groups_[group + 1]; ++r) {
    const Line& line = lines_[readers_[r].value >> kOffsetBits];
    const int64_t offset = int64_t(readers_[r].value & ((1 << kOffsetBits) - 1)) * g.kernel.x;
    for (int64_t i = line.begin; i < line.end; ++i) {
      int64_t x = last_x_[i], dx = first_dx_[i];
      for (; dx < g.kernel.x && x >= 0; dx += g.stride.x, --x) {
        if (x < g.out_shape.x) visit(i, x, offset + dx);
      }
    }
  }
}

void StridedPairs::list(int32_t* in_rows, int32_t* out_rows, int32_t* out_coords) const {
  const int64_t num_offsets = int64_t(counts.size());
  const int32_t* const order = cells_.order.get();
  parallel_chunks(int64_t(groups_.size()) - 1, kGroups, [&](int64_t begin, int64_t end) {
    const int64_t chunk = begin / kGroups;
    std::vector<int64_t> next(starts_.begin() + chunk * num_offsets, starts_.begin() + (chunk + 1) * num_offsets);
    int64_t row = out_starts_[chunk];
    Bits bits(geometry_.out_shape.x);
    for (int64_t group = begin; group < end; ++group) {
      bits.clear();
      for_each_reader(group, [&](int64_t, int64_t x, int64_t) { bits.set(x); });
      bits.rank();
      // Within a line and an offset x ascends, so that pairs come out sorted by output row.
      for_each_reader(group, [&](int64_t i, int64_t x, int64_t offset) {
        const int64_t to = next[offset]++;
        in_rows[to] = order == nullptr ? int32_t(i) : order[i];
        out_rows[to] = int32_t(row + bits.rank_of(x));
      });
      const int64_t line = int64_t(readers_[groups_[group]].key);
      bits.for_each([&](int64_t x) { cell_of_key(line * geometry_.out_shape.x + x, geometry_.out_shape, out_coords + 4 * row++); });
    }
  });
}

}  // namespace equilidar
