//! Owns the words of which people and places are made.
//!
//! Invariants: family and given names are common ones, combined by lot, so that no real person is meant; kana
//! are full-width. Telephone numbers are of ranges that are never assigned: a mobile number's digit after
//! 070/080/090 is never 0, and a local exchange never begins with 0. Mail addresses are under `example.jp`,
//! which is reserved for examples. The canaries are family names and numbers that occur nowhere else.
//! Leaves out: readings that differ from the usual one.

/// Kanji and kana.
pub(crate) type Name = (&'static str, &'static str);

/// Family names.
pub(crate) const FAMILY: &[Name] = &[
    ("佐藤", "サトウ"),
    ("鈴木", "スズキ"),
    ("高橋", "タカハシ"),
    ("田中", "タナカ"),
    ("伊藤", "イトウ"),
    ("渡辺", "ワタナベ"),
    ("山本", "ヤマモト"),
    ("中村", "ナカムラ"),
    ("小林", "コバヤシ"),
    ("加藤", "カトウ"),
    ("吉田", "ヨシダ"),
    ("山田", "ヤマダ"),
    ("佐々木", "ササキ"),
    ("山口", "ヤマグチ"),
    ("松本", "マツモト"),
    ("井上", "イノウエ"),
    ("木村", "キムラ"),
    ("林", "ハヤシ"),
    ("斎藤", "サイトウ"),
    ("清水", "シミズ"),
    ("山崎", "ヤマザキ"),
    ("森", "モリ"),
    ("池田", "イケダ"),
    ("橋本", "ハシモト"),
    ("阿部", "アベ"),
    ("石川", "イシカワ"),
    ("山下", "ヤマシタ"),
    ("中島", "ナカジマ"),
    ("石井", "イシイ"),
    ("小川", "オガワ"),
    ("前田", "マエダ"),
    ("岡田", "オカダ"),
    ("長谷川", "ハセガワ"),
    ("藤田", "フジタ"),
    ("後藤", "ゴトウ"),
    ("近藤", "コンドウ"),
    ("村上", "ムラカミ"),
    ("遠藤", "エンドウ"),
    ("青木", "アオキ"),
    ("坂本", "サカモト"),
    ("福田", "フクダ"),
    ("太田", "オオタ"),
    ("西村", "ニシムラ"),
    ("藤井", "フジイ"),
    ("金子", "カネコ"),
    ("岡本", "オカモト"),
    ("藤原", "フジワラ"),
    ("中野", "ナカノ"),
    ("三浦", "ミウラ"),
    ("原田", "ハラダ"),
    ("中川", "ナカガワ"),
    ("松田", "マツダ"),
    ("竹内", "タケウチ"),
    ("小野", "オノ"),
    ("田村", "タムラ"),
    ("中山", "ナカヤマ"),
    ("和田", "ワダ"),
    ("石田", "イシダ"),
    ("森田", "モリタ"),
    ("上田", "ウエダ"),
    ("原", "ハラ"),
    ("内田", "ウチダ"),
    ("柴田", "シバタ"),
    ("酒井", "サカイ"),
    ("宮崎", "ミヤザキ"),
    ("横山", "ヨコヤマ"),
    ("高木", "タカギ"),
    ("安藤", "アンドウ"),
    ("宮本", "ミヤモト"),
    ("大野", "オオノ"),
];

/// Given names of boys.
pub(crate) const BOYS: &[Name] = &[
    ("蓮", "レン"),
    ("陽翔", "ハルト"),
    ("湊", "ミナト"),
    ("大和", "ヤマト"),
    ("悠真", "ユウマ"),
    ("樹", "イツキ"),
    ("颯太", "ソウタ"),
    ("陸", "リク"),
    ("朝陽", "アサヒ"),
    ("蒼", "アオイ"),
    ("健太", "ケンタ"),
    ("翔", "ショウ"),
    ("大輝", "ダイキ"),
    ("拓海", "タクミ"),
    ("航", "ワタル"),
    ("隼人", "ハヤト"),
    ("直樹", "ナオキ"),
    ("海斗", "カイト"),
    ("優斗", "ユウト"),
    ("智也", "トモヤ"),
    ("一輝", "カズキ"),
    ("圭", "ケイ"),
    ("晴", "ハル"),
    ("誠", "マコト"),
    ("律", "リツ"),
    ("奏", "カナデ"),
    ("涼介", "リョウスケ"),
    ("琉生", "ルイ"),
    ("瑛太", "エイタ"),
    ("壮真", "ソウマ"),
];

/// Given names of girls.
pub(crate) const GIRLS: &[Name] = &[
    ("陽葵", "ヒマリ"),
    ("凛", "リン"),
    ("結菜", "ユイナ"),
    ("葵", "アオイ"),
    ("紬", "ツムギ"),
    ("美咲", "ミサキ"),
    ("莉子", "リコ"),
    ("さくら", "サクラ"),
    ("芽依", "メイ"),
    ("心春", "コハル"),
    ("花音", "カノン"),
    ("杏", "アン"),
    ("千尋", "チヒロ"),
    ("彩花", "アヤカ"),
    ("七海", "ナナミ"),
    ("真央", "マオ"),
    ("楓", "カエデ"),
    ("優奈", "ユナ"),
    ("琴音", "コトネ"),
    ("澪", "ミオ"),
    ("詩織", "シオリ"),
    ("遥", "ハルカ"),
    ("桃花", "モモカ"),
    ("栞", "シオリ"),
    ("ひかり", "ヒカリ"),
    ("咲良", "サラ"),
    ("柚希", "ユズキ"),
    ("文乃", "アヤノ"),
    ("朱莉", "アカリ"),
    ("陽菜", "ヒナ"),
];

/// Given names of mothers and of women on the staff.
pub(crate) const WOMEN: &[Name] = &[
    ("由美", "ユミ"),
    ("恵子", "ケイコ"),
    ("久美子", "クミコ"),
    ("真由美", "マユミ"),
    ("智子", "トモコ"),
    ("裕子", "ユウコ"),
    ("香織", "カオリ"),
    ("理恵", "リエ"),
    ("直美", "ナオミ"),
    ("麻衣", "マイ"),
    ("亜希子", "アキコ"),
    ("美穂", "ミホ"),
    ("早苗", "サナエ"),
    ("千晶", "チアキ"),
    ("典子", "ノリコ"),
];

/// Given names of fathers and of men on the staff.
pub(crate) const MEN: &[Name] = &[
    ("浩", "ヒロシ"),
    ("隆", "タカシ"),
    ("健一", "ケンイチ"),
    ("和也", "カズヤ"),
    ("正人", "マサト"),
    ("哲也", "テツヤ"),
    ("雄介", "ユウスケ"),
    ("剛", "ツヨシ"),
    ("修", "オサム"),
    ("達也", "タツヤ"),
    ("伸一", "シンイチ"),
    ("康平", "コウヘイ"),
    ("慎吾", "シンゴ"),
    ("学", "マナブ"),
    ("徹", "トオル"),
];

/// Family names that do not exist.
pub(crate) const CANARY_FAMILY: &[Name] = &[
    ("架空谷", "カクウダニ"),
    ("幻野瀬", "マボロノセ"),
    ("仮名ヶ沢", "カナガサワ"),
    ("絵空原", "エソラバラ"),
];

/// A reason that occurs once a year.
pub(crate) const CANARY_REASON: &str = "架空検診センターで再検査（カナリア）";

/// Names of schools: of trees and lights, under a city that does not exist.
pub(crate) const SCHOOLS: &[&str] =
    &["若葉台", "あけぼの", "星見", "青葉の森", "ひなた", "風の丘", "みなも", "虹ヶ浦"];

/// Reasons of absence through illness.
pub(crate) const SICK: &[&str] = &["発熱", "発熱・せき", "腹痛", "頭痛", "嘔吐", "かぜ", ""];

/// Reasons of other absence.
pub(crate) const OTHER: &[&str] = &["家庭の都合", "私用", "家族の通院", ""];

/// Reasons of coming late.
pub(crate) const LATE: &[&str] = &["通院", "寝坊", "体調不良", "登校班に間に合わず", ""];

/// Reasons of leaving early.
pub(crate) const EARLY: &[&str] = &["発熱", "通院", "体調不良", "家庭の都合"];

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: kana are full-width katakana. Method: look at every character of every list.
    #[test]
    fn kana_are_full_width() {
        for (kanji, kana) in [FAMILY, BOYS, GIRLS, WOMEN, MEN, CANARY_FAMILY].concat() {
            assert!(kana.chars().all(|c| ('ァ'..='ヶ').contains(&c) || c == 'ー'), "{kana}");
            assert!(!kanji.is_empty());
        }
        assert!(CANARY_FAMILY.iter().all(|canary| !FAMILY.contains(canary)));
    }
}
