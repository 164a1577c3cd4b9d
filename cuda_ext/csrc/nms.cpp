#include "nms.h"

#include <algorithm>
#include <vector>

#include "parallel.h"

namespace equilidar {
namespace {

constexpr int64_t kBlock = 512;               // boxes that are compared in parallel with those kept before
constexpr int64_t kCirclesPerTask = 1 << 18;  // threads pay from about a millisecond on
constexpr int64_t kStride = 128;              // kept boxes whose circles are tested at once

// What was kept, by coordinate, so that the loop over circles runs in vector registers.
template <typename Box>
struct Kept {
  std::vector<double> x, y, radius;
  std::vector<int64_t> group;
  std::vector<Box> boxes;

  void add(const Box& box, int64_t its_group) {
    x.push_back(box.x);
    y.push_back(box.y);
    radius.push_back(box.radius);
    group.push_back(its_group);
    boxes.push_back(box);
  }

  // Whether one from position `begin` on suppresses the box.
  template <typename Rule>
  bool suppress(const Rule& rule, const Box& box, int64_t its_group, int64_t begin) const {
    const int64_t num = static_cast<int64_t>(boxes.size());
    uint8_t near[kStride];
    for (; begin < num; begin += kStride) {
      const int64_t size = min_of(kStride, num - begin);
      circles_that_meet(box, x.data() + begin, y.data() + begin, radius.data() + begin, size, near);
      const uint8_t* const end = near + size;
      for (const uint8_t* found = near; (found = std::find(found, end, 1)) != end; ++found) {
        const int64_t k = begin + (found - near);
        if (group[k] == its_group && rule.suppresses(boxes[k], box)) return true;
      }
    }
    return false;
  }
};

}  // namespace

template <typename Rule, typename T>
void nms_cpu(const Rule& rule, const T* boxes, const int64_t* order, const int64_t* groups, int64_t num, void*,
             int64_t* kept, int64_t* count) {
  using Box = typename Rule::Box;
  Kept<Box> before;
  std::vector<Box> block(kBlock);
  std::vector<uint8_t> dropped(kBlock);
  *count = 0;
  for (int64_t begin = 0; begin < num; begin += kBlock) {
    const int64_t size = min_of(kBlock, num - begin), num_before = static_cast<int64_t>(before.boxes.size());
    parallel_for(size, 1 + kCirclesPerTask / (1 + num_before), [&](int64_t k) {
      const int64_t row = order[begin + k];
      block[k] = rule.prepare(boxes + Rule::kColumns * row);
      dropped[k] = before.suppress(rule, block[k], groups[row], 0);
    });
    for (int64_t k = 0; k < size; ++k) {
      const int64_t row = order[begin + k];
      if (dropped[k] || before.suppress(rule, block[k], groups[row], num_before)) continue;
      before.add(block[k], groups[row]);
      kept[(*count)++] = row;
    }
  }
}

#define EQL_INSTANTIATE(Rule, T) \
  template void nms_cpu(const Rule&, const T*, const int64_t*, const int64_t*, int64_t, void*, int64_t*, int64_t*);
EQL_FOR_RULES(EQL_INSTANTIATE)
#undef EQL_INSTANTIATE

}  // namespace equilidar
