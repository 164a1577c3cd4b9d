#include "points_in_boxes.h"

#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "parallel.h"

namespace equilidar {
namespace {

// A sweep of 100,000 points takes less than half a millisecond: threads pay for several sweeps only.
constexpr int64_t kPointsPerChunk = 1 << 17;
constexpr int64_t kRowsPerChunk = 16;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// One axis of the grid. Monotone in v and clamped to the border, so a point within a box's bounds always lies in a cell
// within the box's cells, whatever rounding does.
struct Axis {
  double low = 0, cells_per_metre = 0;
  int64_t size = 1;

  int64_t cell(double v) const {
    const double t = (v - low) * cells_per_metre;
    // Not a number goes to cell 0, too.
    return t >= static_cast<double>(size) ? size - 1 : t > 0 ? static_cast<int64_t>(t) : 0;
  }
};

struct Bounds {
  double low = kInfinity, high = -kInfinity;
};

// Cells seen from above, each with the boxes whose bounds reach into it, by rising row. A point is then compared with
// the few boxes of its cell, not with all.
template <typename T>
class BoxGrid {
 public:
  BoxGrid(const T* boxes, int64_t num_boxes) : boxes_(num_boxes) {
    std::vector<Bounds> along_x(num_boxes), along_y(num_boxes);
    Bounds range_x, range_y;
    for (int64_t row = 0; row < num_boxes; ++row) {
      const PreparedBox<T> box = boxes_[row] = prepare_box(boxes + 7 * row);
      const double length = box.half_length, width = box.half_width;
      const double cos_yaw = std::abs(box.cos_yaw), sin_yaw = std::abs(box.sin_yaw);
      // Generous: `contains` rounds in T, relative to the box's size.
      const double slack = 1e-5 * (length + width);
      along_x[row] = bounds(box.x, length * cos_yaw + width * sin_yaw + slack, range_x);
      along_y[row] = bounds(box.y, length * sin_yaw + width * cos_yaw + slack, range_y);
    }
    // Large boxes in a fine grid would be listed very often: coarser until the lists are short.
    int64_t size = min_of<int64_t>(256, static_cast<int64_t>(4 * std::sqrt(static_cast<double>(num_boxes))) + 1);
    for (;; size /= 2) {
      x_ = axis(range_x, size);
      y_ = axis(range_y, size);
      int64_t entries = 0;
      for (int64_t row = 0; row < num_boxes; ++row) {
        const int64_t width = x_.cell(along_x[row].high) - x_.cell(along_x[row].low) + 1;
        const int64_t height = y_.cell(along_y[row].high) - y_.cell(along_y[row].low) + 1;
        entries += width * height;
      }
      if (size == 1 || entries <= 64 * num_boxes + 4096) break;
    }
    begins_.assign(x_.size * y_.size + 1, 0);
    const auto each_cell = [&](int64_t row, const auto& visit) {
      const int64_t last_x = x_.cell(along_x[row].high), last_y = y_.cell(along_y[row].high);
      for (int64_t y = y_.cell(along_y[row].low); y <= last_y; ++y)
        for (int64_t x = x_.cell(along_x[row].low); x <= last_x; ++x) visit(y * x_.size + x);
    };
    for (int64_t row = 0; row < num_boxes; ++row) each_cell(row, [&](int64_t cell) { ++begins_[cell + 1]; });
    for (size_t cell = 1; cell < begins_.size(); ++cell) begins_[cell] += begins_[cell - 1];
    rows_.resize(begins_.back());
    std::vector<int64_t> next(begins_.begin(), begins_.end() - 1);
    for (int64_t row = 0; row < num_boxes; ++row)
      each_cell(row, [&](int64_t cell) { rows_[next[cell]++] = static_cast<int32_t>(row); });
  }

  // Call visit(row) for each box that contains the point, by rising row.
  template <typename Visit>
  void each_box(const T* point, const Visit& visit) const {
    const int64_t cell = y_.cell(point[1]) * x_.size + x_.cell(point[0]);
    for (int64_t i = begins_[cell]; i < begins_[cell + 1]; ++i)
      if (contains(boxes_[rows_[i]], point)) visit(rows_[i]);
  }

 private:
  // The interval of an axis in which the box lies; all of it where it is not a number (infinite boxes).
  static Bounds bounds(double center, double reach, Bounds& range) {
    const Bounds found{center - reach, center + reach};
    if (std::isnan(found.low) || std::isnan(found.high)) return {-kInfinity, kInfinity};
    if (std::isfinite(found.low)) range.low = min_of(range.low, found.low);
    if (std::isfinite(found.high)) range.high = max_of(range.high, found.high);
    return found;
  }

  static Axis axis(const Bounds& range, int64_t size) {
    const double cells_per_metre = static_cast<double>(size) / (range.high - range.low);
    if (!(range.low < range.high) || !std::isfinite(cells_per_metre)) return {};
    return {range.low, cells_per_metre, size};
  }

  std::vector<PreparedBox<T>> boxes_;
  Axis x_, y_;
  std::vector<int64_t> begins_;
  std::vector<int32_t> rows_;
};

}  // namespace

template <typename T>
void membership_cpu(const T* points, int64_t num_points, const T* boxes, int64_t num_boxes, bool* inside) {
  if (num_points == 0 || num_boxes == 0) return;
  parallel_for(num_boxes, kRowsPerChunk, [&](int64_t row) { std::memset(inside + row * num_points, 0, num_points); });
  const BoxGrid<T> grid(boxes, num_boxes);
  parallel_for(num_points, kPointsPerChunk, [&](int64_t i) {
    grid.each_box(points + 3 * i, [&](int64_t row) { inside[row * num_points + i] = true; });
  });
}

template <typename T>
void points_in_boxes_cpu(const T* points, const int64_t* point_offsets, int64_t num_points, const T* boxes,
                         const int64_t* box_offsets, int64_t num_items, int64_t* first, int64_t* counts) {
  for (int64_t item = 0; item < num_items; ++item) {
    const int64_t begin = point_offsets[item], low = box_offsets[item], num_boxes = box_offsets[item + 1] - low;
    const BoxGrid<T> grid(boxes + 7 * low, num_boxes);
    parallel_chunks(point_offsets[item + 1] - begin, kPointsPerChunk, [&](int64_t chunk_begin, int64_t chunk_end) {
      std::vector<int64_t> found(num_boxes);
      for (int64_t i = begin + chunk_begin; i < begin + chunk_end; ++i) {
        first[i] = -1;
        grid.each_box(points + 3 * i, [&](int64_t row) {
          if (first[i] < 0) first[i] = low + row;
          ++found[row];
        });
      }
      for (int64_t row = 0; row < num_boxes; ++row) {
        if (found[row] == 0) continue;
#pragma omp atomic
        counts[low + row] += found[row];
      }
    });
  }
}

template void membership_cpu(const float*, int64_t, const float*, int64_t, bool*);
template void membership_cpu(const double*, int64_t, const double*, int64_t, bool*);
template void points_in_boxes_cpu(const float*, const int64_t*, int64_t, const float*, const int64_t*, int64_t, int64_t*,
                                  int64_t*);
template void points_in_boxes_cpu(const double*, const int64_t*, int64_t, const double*, const int64_t*, int64_t, int64_t*,
                                  int64_t*);

}  // namespace equilidar
