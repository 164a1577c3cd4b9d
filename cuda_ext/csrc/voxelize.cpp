#include "voxelize.h"

#include <algorithm>

#include "cell_hash.h"
#include "parallel.h"
#include "voxel_cells.h"

namespace equilidar {
namespace {

constexpr int64_t kPoints = 32768;  // per task: one thread does as many in the time that it takes to wake another

// Runs of points that follow each other in the cloud and share a voxel, as a scan's often do: key and first point, side
// by side in a word; the wide one where both together take more than 64 bits.
template <typename Word>
struct Records {
  const Word* words;
  const bool* joins;  // whether a point belongs to the run of the one before it
  int point_bits;
  uint64_t point_mask;

  uint64_t key(int64_t i) const { return uint64_t(words[i] >> point_bits); }
  int64_t point(int64_t i) const { return int64_t(uint64_t(words[i]) & point_mask); }
};

template <typename T, typename Word>
class SortedPoints final : public VoxelOrder<T> {
 public:
  explicit SortedPoints(const Clouds<T>& clouds)
      : keys_(clouds.keys),
        num_points_(clouds.offsets[clouds.num_items]),
        point_bits_(bits_of(max_of<int64_t>(num_points_, 1))),
        words_(new Word[num_points_]),
        joins_(new bool[num_points_ + 1]) {
    // Each task leaves out what is outside and begins runs of its own; then the gaps are closed.
    std::vector<int64_t> found(tasks_of(num_points_));
    parallel_chunks(num_points_, kPoints, [&](int64_t begin, int64_t end) {
      int64_t num = 0;
      uint64_t last = kNoCell;
      clouds.for_each_block(begin, end, [&](int64_t first, const uint64_t* keys, int64_t size) {
        // Copies, which what is written cannot change, stay in registers.
        Word* const start = words_.get() + begin + num;
        Word* next = start;
        bool* const joins = joins_.get() + first;
        const int point_bits = point_bits_;
        uint64_t before = last;
        for (int64_t i = 0; i < size; ++i) {
          const uint64_t key = keys[i];
          *next = Word(key) << point_bits | Word(first + i);
          joins[i] = (key != kNoCell) & (key == before);
          next += (key != kNoCell) & (key != before);
          before = key;
        }
        num += next - start;
        last = before;
      });
      found[begin / kPoints] = num;
    });
    joins_[num_points_] = false;
    for (int64_t task = 0; task < int64_t(found.size()); ++task) {
      Word* const from = words_.get() + task * kPoints;
      if (from != words_.get() + num_runs_) std::copy_n(from, found[task], words_.get() + num_runs_);
      num_runs_ += found[task];
    }
    radix_sort(words_, num_runs_, point_bits_, point_bits_ + keys_.batch_shift + bits_of(clouds.num_items));
    const int64_t tasks = tasks_of(num_runs_);
    starts_.resize(tasks + 1);
    const Records<Word> records = sorted();
    parallel_chunks(num_runs_, kPoints, [&, records](int64_t begin, int64_t end) {
      int64_t count = begin == 0;
      for (int64_t i = max_of<int64_t>(begin, 1); i < end; ++i) count += records.key(i) != records.key(i - 1);
      starts_[begin / kPoints + 1] = count;
    });
    for (int64_t task = 0; task < tasks; ++task) starts_[task + 1] += starts_[task];
    this->num_voxels = starts_[tasks];
  }

  void rows(int64_t* rows, int32_t* coords) const override {
    parallel_chunks(num_points_, kPoints, [&](int64_t begin, int64_t end) { std::fill(rows + begin, rows + end, -1); });
    for_each_voxel(coords, [rows](const Records<Word>& records, int64_t row, int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        int64_t point = records.point(i);
        do rows[point] = row;
        while (records.joins[++point]);
      }
    });
  }

  void means(const T* xyz, const T* features, int64_t channels, T* means, int32_t* coords) const override {
    // One channel, the intensity, is known to the compiler.
    channels == 1 ? sum<1>(xyz, features, 1, means, coords) : sum<-1>(xyz, features, channels, means, coords);
  }

 private:
  static int64_t tasks_of(int64_t num) { return (num + kPoints - 1) / kPoints; }
  Records<Word> sorted() const { return {words_.get(), joins_.get(), point_bits_, (uint64_t(1) << point_bits_) - 1}; }

  // Call visit(records, row, first, last) for each voxel's points, and write its coords. A voxel is of the task that it
  // begins in.
  template <typename Visit>
  void for_each_voxel(int32_t* coords, const Visit& visit) const {
    parallel_chunks(num_runs_, kPoints, [&](int64_t begin, int64_t end) {
      // Copies, as above.
      const Visit visit_voxel = visit;
      const Records<Word> records = sorted();
      const VoxelKeys keys = keys_;
      const int64_t num = num_runs_;
      int64_t row = starts_[begin / kPoints];
      while (begin > 0 && begin < end && records.key(begin) == records.key(begin - 1)) ++begin;
      for (int32_t* cell = coords + 4 * row; begin < end; ++row, cell += 4) {
        const uint64_t key = records.key(begin);
        int64_t last = begin + 1;
        while (last < num && records.key(last) == key) ++last;
        keys.unpack(int64_t(key), cell);
        visit_voxel(records, row, begin, last);
        begin = last;
      }
    });
  }

  template <int CHANNELS>
  void sum(const T* xyz, const T* features, int64_t given, T* means, int32_t* coords) const {
    const int64_t channels = CHANNELS < 0 ? given : CHANNELS;
    for_each_voxel(coords, [=](const Records<Word>& records, int64_t row, int64_t first, int64_t last) {
      T* const mean = means + row * (3 + channels);
      T x = 0, y = 0, z = 0;
      std::fill_n(mean + 3, channels, T(0));
      int64_t count = 0;
      for (int64_t i = first; i < last; ++i) {
        int64_t point = records.point(i);
        do {
          x += xyz[3 * point];
          y += xyz[3 * point + 1];
          z += xyz[3 * point + 2];
          for (int64_t c = 0; c < channels; ++c) mean[3 + c] += features[channels * point + c];
          ++count;
        } while (records.joins[++point]);
      }
      mean[0] = x;
      mean[1] = y;
      mean[2] = z;
      // Most voxels hold one point, and divisions take long.
      if (count == 1) return;
      for (int64_t c = 0; c < 3 + channels; ++c) mean[c] /= T(count);
    });
  }

  VoxelKeys keys_;
  int64_t num_points_, num_runs_ = 0;
  int point_bits_;
  std::unique_ptr<Word[]> words_;
  std::unique_ptr<bool[]> joins_;
  std::vector<int64_t> starts_;  // voxels that begin before each task
};

}  // namespace

template <typename T>
std::unique_ptr<VoxelOrder<T>> sort_points_cpu(const T* xyz, const int64_t* offsets, int64_t num_items,
                                               const VoxelGrid<T>& grid) {
  const Clouds<T> clouds(xyz, offsets, num_items, grid);
  const int bits = clouds.keys.bits + bits_of(offsets[num_items] + 1);
  if (bits <= 64) return std::make_unique<SortedPoints<T, uint64_t>>(clouds);
  return std::make_unique<SortedPoints<T, unsigned __int128>>(clouds);
}

#define EQL_INSTANTIATE(T) \
  template std::unique_ptr<VoxelOrder<T>> sort_points_cpu(const T*, const int64_t*, int64_t, const VoxelGrid<T>&);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar
