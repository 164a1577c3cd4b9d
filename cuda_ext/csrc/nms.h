// Greedy non-maximum suppression: see equilidar/ops/nms.py. One walk for three rules of when a box suppresses another.
#pragma once

#include "rotated_iou.h"

namespace equilidar {

// A rule prepares a row (of `kColumns` numbers) as a `Box` with x, y and the radius of a circle; boxes whose circles do
// not meet are never compared. `suppresses` has the kept box first.

struct RotatedRule {
  using Box = OverlapBox;
  static constexpr int kColumns = 7;
  double iou_threshold;

  template <typename T>
  EQL_HD Box prepare(const T* row) const {
    return prepare_overlap(row);
  }

  EQL_HD bool suppresses(const Box& kept, const Box& other) const { return iou_of_pair(kept, other, false) > iou_threshold; }
};

// The yaw is dropped.
struct AxisAlignedRule {
  struct Box {
    double x, y, half_length, half_width, radius;
  };
  static constexpr int kColumns = 7;
  double iou_threshold;

  template <typename T>
  EQL_HD Box prepare(const T* row) const {
    const double length = row[3], width = row[4];
    return {row[0], row[1], length / 2, width / 2, std::sqrt(length * length + width * width) / 2};
  }

  EQL_HD bool suppresses(const Box& kept, const Box& other) const {
    const double overlap = shared_length(other.x - kept.x, kept.half_length, other.half_length) *
                           shared_length(other.y - kept.y, kept.half_width, other.half_width);
    const double together = 4 * (kept.half_length * kept.half_width) + 4 * (other.half_length * other.half_width);
    return overlap_ratio(overlap, together) > iou_threshold;
  }
};

// Rows are x, y of centers.
struct CircleRule {
  struct Box {
    double x, y, radius;
  };
  static constexpr int kColumns = 2;
  double distance;

  template <typename T>
  EQL_HD Box prepare(const T* row) const {
    return {row[0], row[1], distance / 2};
  }

  EQL_HD bool suppresses(const Box& kept, const Box& other) const {
    const double dx = other.x - kept.x, dy = other.y - kept.y;
    return dx * dx + dy * dy <= distance * distance;
  }
};

// MACRO(rule, dtype) for all that is compiled.
#define EQL_FOR_RULES(MACRO)      \
  MACRO(RotatedRule, float)       \
  MACRO(RotatedRule, double)      \
  MACRO(AxisAlignedRule, float)   \
  MACRO(AxisAlignedRule, double)  \
  MACRO(CircleRule, float)        \
  MACRO(CircleRule, double)

// Bytes of scratch memory that `nms_cuda` needs for `num` boxes.
int64_t nms_workspace_cuda(int64_t num);

// order is (num), rows by falling score; groups is (num), by row. Writes kept rows by falling score to kept (num), and
// how many there are to count (1).
template <typename Rule, typename T>
void nms_cpu(const Rule& rule, const T* boxes, const int64_t* order, const int64_t* groups, int64_t num, void* workspace,
             int64_t* kept, int64_t* count);
template <typename Rule, typename T>
void nms_cuda(const Rule& rule, const T* boxes, const int64_t* order, const int64_t* groups, int64_t num, void* workspace,
              int64_t* kept, int64_t* count, Stream stream);

}  // namespace equilidar
